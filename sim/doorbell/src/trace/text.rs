//! Writes a trace as text, with one line per event. Each line states the time and the message or
//! vector concerned.

use super::names::command_name;
use crate::wording::counted;
use doorbell_machine::{Delivery, Event, Occurrence, Record, Signaled, Trace, TraceTime};
use std::io::{self, Write};

/// Writes the trace.
pub(super) fn write(out: &mut impl Write, trace: &Trace) -> io::Result<()> {
    let unit = match trace.time {
        TraceTime::Nanoseconds => " ns",
        TraceTime::Steps => "",
    };
    for record in &trace.records {
        writeln!(out, "{:>12}{unit}  {}{}", record.at, subject(trace, record), clause(record))?;
    }
    if trace.left_out > 0 {
        writeln!(out, "{} more events were left out", trace.left_out)?;
    }
    Ok(())
}

/// Returns the beginning of a line: the device, the vector, and the number of the message.
fn subject(trace: &Trace, record: &Record) -> String {
    let Some(subject) = record.subject else { return String::new() };
    let index = usize::try_from(subject.device).ok();
    let name = index.and_then(|index| trace.devices.get(index)).map_or("?", String::as_str);
    match (record.what, subject.message) {
        (Occurrence::Readded, _) => format!("{name}: "),
        (_, 0) => format!("{name} vector {}: ", subject.vector),
        (_, message) => format!("{name} vector {} message {message}: ", subject.vector),
    }
}

fn clause(record: &Record) -> String {
    match record.what {
        Occurrence::Event(Event::Command { its, words }) => {
            let name = command_name(words[0]);
            let words = words.map(|word| format!("{word:#x}")).join(" ");
            format!("the ITS at {its:#x} receives {name} ({words})")
        }
        Occurrence::Event(event) => event.to_string(),
        Occurrence::Sends => "the device starts to send".to_owned(),
        Occurrence::Answered(answer) => match answer {
            Signaled::Sent(Delivery::Pending) => "sent",
            Signaled::Sent(Delivery::Blocked | Delivery::NoDoorbell) => "sent and lost",
            Signaled::Held => "held back by a mask",
            Signaled::Off => "not sent: the device may not send",
        }
        .to_owned(),
        Occurrence::Handles { cpu, messages: 0 } => {
            format!("CPU {cpu} runs the handler, which finds no new message")
        }
        Occurrence::Handles { cpu, messages: 1 } => format!("CPU {cpu} runs the handler"),
        Occurrence::Handles { cpu, messages } => {
            let earlier = messages - 1;
            let earlier = counted(earlier, "earlier message");
            format!("CPU {cpu} runs the handler for this and {earlier}")
        }
        Occurrence::Slept { cpu } => format!("CPU {cpu} sleeps"),
        Occurrence::Woke { cpu } => format!("CPU {cpu} wakes"),
        Occurrence::Replugged { cpu } => format!("CPU {cpu} was offline"),
        Occurrence::Readded => "the device was removed and added again".to_owned(),
        Occurrence::Suspended => "the machine suspends and resumes".to_owned(),
        Occurrence::Migrated => "the interrupt controller migrates".to_owned(),
        other => format!("{other:?}"),
    }
}

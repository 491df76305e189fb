//! A peer of `doorbell bench` that measures the cost of injection with the crate `arm_vgic`.
//!
//! ```console
//! $ (cd peers/arm-vgic && cargo build --release)
//! $ cargo run --release -- bench --peer peers/arm-vgic/target/release/arm-vgic-peer
//! ```
//!
//! Each line on standard input is answered by one line on standard output. The answer to `cases` is
//! the list of names below. The answer to a name is the duration of one operation in nanoseconds,
//! measured once. MSIs are sent by `signal_msi`, bypassing the translation register. A vCPU takes
//! the interrupts in its list registers by entering and leaving the guest.

mod lock;
mod machine;

use arm_vgic::VgicError;
use machine::Machine;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// Number of MSIs that are sent before the vCPU takes all of them, which equals the number of list
/// registers.
const BATCH: u32 = 16;
const REPEATS: u32 = 4096;

type Sample = Box<dyn FnMut() -> Result<f64, VgicError>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cases = cases()?;
    let names: Vec<_> = cases.keys().copied().collect();
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        match (&*line?, &mut cases) {
            ("cases", _) => writeln!(output, "{}", names.join(" "))?,
            (name, cases) => match cases.get_mut(name).map(|sample| sample()) {
                Some(Ok(time)) => writeln!(output, "{time}")?,
                Some(Err(error)) => writeln!(output, "{error}")?,
                None => writeln!(output, "unknown case {name}")?,
            },
        }
        output.flush()?;
    }
    Ok(())
}

/// Returns the measurements by name. The measurements correspond to the cases of `doorbell bench`
/// with similar names.
fn cases() -> Result<BTreeMap<&'static str, Sample>, VgicError> {
    Ok(BTreeMap::from([
        ("arm-vgic-inject-1", pending()?),
        ("arm-vgic-inject-1-fresh", random(16)?),
        ("arm-vgic-inject-1k-random", random(1 << 10)?),
        ("arm-vgic-inject-57k-random", random(57_344)?),
        ("arm-vgic-inject-ack-depth-1", depth(1)?),
        ("arm-vgic-inject-ack-depth-16k", depth(1 << 14)?),
    ]))
}

fn each(spent: Duration, operations: u32) -> f64 {
    spent.as_secs_f64() * 1e9 / f64::from(operations)
}

/// Sends MSIs for a single event that is already pending.
fn pending() -> Result<Sample, VgicError> {
    let machine = Machine::mapped(1, 1)?;
    machine.send(0)?;
    Ok(Box::new(move || {
        let start = Instant::now();
        (0..REPEATS).try_for_each(|_| machine.send(0))?;
        Ok(each(start.elapsed(), REPEATS))
    }))
}

/// Sends MSIs for random events among `events`. A round sends one MSI from each sixteenth of the
/// events; none of the chosen events is pending. The time to take them is not measured.
fn random(events: u32) -> Result<Sample, VgicError> {
    let machine = Machine::mapped(events.div_ceil(machine::EVENTS), 1)?;
    let (mut next, sixteenth) = (1u32, events / BATCH);
    Ok(Box::new(move || {
        let mut spent = Duration::ZERO;
        for _ in 0..REPEATS / BATCH {
            let start = Instant::now();
            for batch in 0..BATCH {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                machine.send(batch * sixteenth + (next >> 8) % sixteenth)?;
            }
            spent += start.elapsed();
            while !machine.take(0)?.is_empty() {}
        }
        Ok(each(spent, REPEATS))
    }))
}

/// With `events` events pending, takes the events with the highest priority on a vCPU, and sends
/// their MSIs again.
fn depth(events: u32) -> Result<Sample, VgicError> {
    let machine = Machine::mapped(events.div_ceil(machine::EVENTS), 1)?;
    (0..events).try_for_each(|event| machine.send(event))?;
    Ok(Box::new(move || {
        let start = Instant::now();
        let mut count = 0;
        while count < BATCH {
            for event in machine.take(0)? {
                machine.send(event)?;
                count += 1;
            }
        }
        Ok(each(start.elapsed(), count))
    }))
}

//! The text form of programs: a line for the machine (its kind, and the numbers of vCPUs and LPIs;
//! with wired interrupts, also the security view, the number of priority bits, whether SPIs may be
//! 1-of-N, and the order of ends), and a line for each step, a name and decimal numbers. Empty
//! lines and lines that start with `#` have no meaning.

use super::{Ends, Field, Program, Register, Shape, Step, Wired};
use crate::guest::{
    RAM, clear, discard, int, inv, invall, mapc, mapd, mapi, mapti, movall, movi, sync, unmapc,
    unmapd,
};
use gic_arch::its::{Command, MapAction, RdBase};
use std::str::FromStr;
use std::{fmt, fs, io};

/// Names of the kinds of machines.
const TRANSLATED: &str = "its";
const DIRECT: &str = "direct-lpis";
const WIRED: &str = "wired";

/// Returns the address of a device's translation table. Tables of DeviceIDs below 8 don't overlap.
pub const fn itt(device: u32) -> u64 {
    RAM + 0x30_0000 + (device % 8) as u64 * 0x1_0000
}

fn cpu(target: RdBase) -> u32 {
    target.processor_number().map_or(u32::MAX, u32::from)
}

/// Returns the name of a command, and its numbers.
fn words(command: Command) -> (&'static str, Vec<u32>) {
    match command {
        Command::Mapd { device, action: MapAction::Unmap, .. } => ("unmapd", vec![device.get()]),
        Command::Mapd { device, event_bits_minus_one: bits, .. } => {
            ("mapd", vec![device.get(), u32::from(bits) + 1])
        }
        Command::Mapc { collection, action: MapAction::Unmap, .. } => {
            ("unmapc", vec![collection.get().into()])
        }
        Command::Mapc { collection, target, .. } => {
            ("mapc", vec![collection.get().into(), cpu(target)])
        }
        Command::Mapti { device, event, intid, collection } => {
            ("mapti", vec![device.get(), event.get(), intid, collection.get().into()])
        }
        Command::Mapi { device, event, collection } => {
            ("mapi", vec![device.get(), event.get(), collection.get().into()])
        }
        Command::Movi { device, event, collection } => {
            ("movi", vec![device.get(), event.get(), collection.get().into()])
        }
        Command::Discard { device, event } => ("discard", vec![device.get(), event.get()]),
        Command::Clear { device, event } => ("clear", vec![device.get(), event.get()]),
        Command::Int { device, event } => ("int", vec![device.get(), event.get()]),
        Command::Inv { device, event } => ("inv", vec![device.get(), event.get()]),
        Command::Invall { collection } => ("invall", vec![collection.get().into()]),
        Command::Movall { from, to } => ("movall", vec![cpu(from), cpu(to)]),
        Command::Sync { target } => ("sync", vec![cpu(target)]),
    }
}

fn command(name: &str, numbers: &[u32]) -> Option<Command> {
    let low = |number: u32| u16::try_from(number).ok();
    Some(match (name, numbers) {
        ("mapd", &[device, bits]) => mapd(device, u8::try_from(bits).ok()?.max(1), itt(device)),
        ("unmapd", &[device]) => unmapd(device),
        ("mapc", &[collection, cpu]) => mapc(low(collection)?, low(cpu)?),
        ("unmapc", &[collection]) => unmapc(low(collection)?),
        ("mapti", &[device, event, lpi, to]) => mapti(device, event, lpi, low(to)?),
        ("mapi", &[device, event, to]) => mapi(device, event, low(to)?),
        ("movi", &[device, event, to]) => movi(device, event, low(to)?),
        ("discard", &[device, event]) => discard(device, event),
        ("clear", &[device, event]) => clear(device, event),
        ("int", &[device, event]) => int(device, event),
        ("inv", &[device, event]) => inv(device, event),
        ("invall", &[collection]) => invall(low(collection)?),
        ("movall", &[from, to]) => movall(low(from)?, low(to)?),
        ("sync", &[cpu]) => sync(low(cpu)?),
        _ => return None,
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = u32::from;
        match *self {
            Self::Command(command) | Self::Post(command) => {
                let (name, numbers) = words(command);
                let post = if matches!(self, Self::Post(_)) { "post " } else { "" };
                write!(f, "{post}{name}")?;
                numbers.iter().try_for_each(|number| write!(f, " {number}"))
            }
            Self::PostUnknown(opcode) => write!(f, "post unknown {opcode}"),
            Self::Wait => f.write_str("wait"),
            Self::Send { device, event } => write!(f, "send {device} {event}"),
            Self::Configure { lpi, configuration } => write!(f, "configure {lpi} {configuration}"),
            Self::Handle { cpu } => write!(f, "handle {cpu}"),
            Self::SetLpi { cpu, lpi } => write!(f, "setlpir {cpu} {lpi}"),
            Self::ClearLpi { cpu, lpi } => write!(f, "clrlpir {cpu} {lpi}"),
            Self::Invalidate { cpu, lpi } => write!(f, "invlpir {cpu} {lpi}"),
            Self::InvalidateAll { cpu } => write!(f, "invallr {cpu}"),
            Self::EnableLpis { cpu, enable } => write!(f, "enable-lpis {cpu} {}", on(enable)),
            Self::EnableIts { enable } => write!(f, "enable-its {}", on(enable)),
            Self::Restore => f.write_str("restore"),
            Self::Line { cpu, intid, high } => write!(f, "line {cpu} {intid} {}", on(high)),
            Self::Link { cpu, intid, on: is_on } => write!(f, "link {cpu} {intid} {}", on(is_on)),
            Self::Message { intid, set } => write!(f, "message {intid} {}", on(set)),
            Self::Field { cpu, field, intid, value } => {
                write!(f, "{} {cpu} {intid} {value}", field.row().0)
            }
            Self::ReadField { cpu, field, intid } => {
                write!(f, "read {} {cpu} {intid}", field.row().0)
            }
            Self::Route { intid, target } => write!(f, "irouter {intid} {target}"),
            Self::Groups { zero, one } => write!(f, "groups {} {}", on(zero), on(one)),
            Self::Waker { cpu, asleep } => write!(f, "waker {cpu} {}", on(asleep)),
            Self::Decline { cpu, zero, one } => write!(f, "decline {cpu} {} {}", on(zero), on(one)),
            Self::Reset { cpu } => write!(f, "reset {cpu}"),
            Self::Read { cpu, register } => write!(f, "read {} {cpu}", register.row().0),
            Self::Write { cpu, register, value } => {
                write!(f, "{} {cpu} {value}", register.row().0)
            }
            Self::Inputs { cpu } => write!(f, "inputs {cpu}"),
            Self::End { cpu, group } => write!(f, "end {cpu} {group}"),
            Self::Refire { cpu, target } => write!(f, "refire {cpu} {target}"),
        }
    }
}

fn step(line: &str) -> Option<Step> {
    access(line).or_else(|| other_step(line))
}

/// Parses an access to a register of [`Field`] or [`Register`].
fn access(line: &str) -> Option<Step> {
    let (is_read, line) = line.strip_prefix("read ").map_or((false, line), |rest| (true, rest));
    let (name, numbers) = line.split_once(' ')?;
    let mut numbers = numbers.split_whitespace();
    let cpu = numbers.next()?.parse().ok()?;
    if let Some((_, register, _)) = Register::ALL.iter().find(|row| row.0 == name) {
        let register = *register;
        return Some(if is_read {
            Step::Read { cpu, register }
        } else {
            Step::Write { cpu, register, value: numbers.next()?.parse().ok()? }
        });
    }
    let (_, field, _) = *Field::ALL.iter().find(|row| row.0 == name)?;
    let intid = numbers.next()?.parse().ok()?;
    Some(if is_read {
        Step::ReadField { cpu, field, intid }
    } else {
        Step::Field { cpu, field, intid, value: numbers.next()?.parse().ok()? }
    })
}

fn other_step(line: &str) -> Option<Step> {
    let (is_post, line) = line.strip_prefix("post ").map_or((false, line), |rest| (true, rest));
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let numbers: Vec<u32> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let index = |number: u32| usize::try_from(number).ok();
    if let Some(command) = command(name, &numbers) {
        return Some(if is_post { Step::Post(command) } else { Step::Command(command) });
    }
    Some(match (name, &*numbers) {
        ("unknown", &[opcode]) if is_post => Step::PostUnknown(u8::try_from(opcode).ok()?),
        _ if is_post => return None,
        ("wait", &[]) => Step::Wait,
        ("send", &[device, event]) => Step::Send { device, event },
        ("configure", &[lpi, byte]) => {
            Step::Configure { lpi, configuration: u8::try_from(byte).ok()? }
        }
        ("handle", &[cpu]) => Step::Handle { cpu: index(cpu)? },
        ("setlpir", &[cpu, lpi]) => Step::SetLpi { cpu: index(cpu)?, lpi },
        ("clrlpir", &[cpu, lpi]) => Step::ClearLpi { cpu: index(cpu)?, lpi },
        ("invlpir", &[cpu, lpi]) => Step::Invalidate { cpu: index(cpu)?, lpi },
        ("invallr", &[cpu]) => Step::InvalidateAll { cpu: index(cpu)? },
        ("enable-lpis", &[cpu, on]) => Step::EnableLpis { cpu: index(cpu)?, enable: on != 0 },
        ("enable-its", &[on]) => Step::EnableIts { enable: on != 0 },
        ("restore", &[]) => Step::Restore,
        ("line", &[cpu, intid, on]) => Step::Line { cpu: index(cpu)?, intid, high: on != 0 },
        ("link", &[cpu, intid, on]) => Step::Link { cpu: index(cpu)?, intid, on: on != 0 },
        ("message", &[intid, on]) => Step::Message { intid, set: on != 0 },
        ("irouter", &[intid, to]) => Step::Route { intid, target: index(to)? },
        ("groups", &[zero, one]) => Step::Groups { zero: zero != 0, one: one != 0 },
        ("waker", &[cpu, on]) => Step::Waker { cpu: index(cpu)?, asleep: on != 0 },
        ("decline", &[cpu, zero, one]) => {
            Step::Decline { cpu: index(cpu)?, zero: zero != 0, one: one != 0 }
        }
        ("reset", &[cpu]) => Step::Reset { cpu: index(cpu)? },
        ("inputs", &[cpu]) => Step::Inputs { cpu: index(cpu)? },
        ("end", &[cpu, group]) => Step::End { cpu: index(cpu)?, group: index(group)? },
        ("refire", &[cpu, to]) => Step::Refire { cpu: index(cpu)?, target: index(to)? },
        _ => return None,
    })
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { cpus, lpis, is_direct, wired } = self.shape;
        match wired {
            Some(Wired { is_non_secure, bits, one_of_n, ends }) => {
                let (view, one_of_n) = (u8::from(is_non_secure), u8::from(one_of_n));
                writeln!(f, "{WIRED} {cpus} {lpis} {view} {bits} {one_of_n} {}", ends as u8)
            }
            None => writeln!(f, "{} {cpus} {lpis}", if is_direct { DIRECT } else { TRANSLATED }),
        }?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Program {
    type Err = String;

    /// Parses a program. The error is the first line that is not a step.
    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let shape = shape(first).ok_or(first)?;
        let steps = lines.map(|line| step(line).ok_or_else(|| line.to_owned()));
        Ok(Self { shape, steps: steps.collect::<Result<_, _>>()? })
    }
}

/// Returns the findings that are kept in the folder `programs`, with their names.
///
/// # Panics
/// Panics if a file is not a program.
pub fn kept() -> Vec<(String, Program)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");
    let files = fs::read_dir(folder).expect("the folder exists");
    let program = |file: io::Result<fs::DirEntry>| {
        let file = file.expect("the folder can be read");
        let text = fs::read_to_string(file.path()).expect("the file is text");
        let name = file.file_name().to_string_lossy().into_owned();
        let program = text.parse().unwrap_or_else(|line| panic!("{name}: no step: {line}"));
        (name, program)
    };
    files.map(program).collect()
}

fn shape(line: &str) -> Option<Shape> {
    let (kind, numbers) = line.split_once(' ')?;
    let numbers: Vec<u16> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (wired, is_direct) = match (kind, &*numbers) {
        (TRANSLATED, &[_, _]) => (None, false),
        (DIRECT, &[_, _]) => (None, true),
        (WIRED, &[_, lpis, is_non_secure, bits, one_of_n, ends]) => {
            let ends = *[Ends::Any, Ends::Own, Ends::Nested].get(usize::from(ends))?;
            let bits = u8::try_from(bits).ok()?;
            let (is_non_secure, one_of_n) = (is_non_secure != 0, one_of_n != 0);
            (Some(Wired { is_non_secure, bits, one_of_n, ends }), lpis > 0)
        }
        _ => return None,
    };
    Some(Shape { cpus: numbers[0], lpis: numbers[1].into(), is_direct, wired })
}

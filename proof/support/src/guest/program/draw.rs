//! Random programs.

mod wired;

use super::bench::Shape;
use super::{Program, Step, text};
use crate::guest::{
    clear, discard, int, inv, invall, mapc, mapd, mapi, mapti, movall, movi, sync, unmapc, unmapd,
};
use gic_arch::its::Command;
use wired::Below;

const FIRST_LPI: u32 = 8192;
const DEVICES: u32 = 5;
/// Events in different nodes of the model's tables. MAPI maps the last one.
const EVENTS: [u32; 8] = [0, 1, 2, 31, 32, 100, 3000, FIRST_LPI];
const EVENT_BITS: [u8; 8] = [1, 2, 5, 6, 12, 12, 14, 17];
const COLLECTIONS: u32 = 5;
/// Priorities that differ in the implemented bits, most of them without the enable bit.
const CONFIGURATIONS: [u8; 6] = [0xa0, 0xa1, 0xa1, 0x61, 0xc1, 0x20];

/// Returns pseudorandom numbers below a bound, from a seed (SplitMix64).
pub fn dice(mut seed: u64) -> impl FnMut(u32) -> u32 {
    move |bound| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ mixed >> 31) >> 32).unwrap_or(0) % bound
    }
}

/// Draws the steps of programs. Some of the commands are wrong.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// The machine.
    pub shape: Shape,
    /// Several events may be mapped to one LPI.
    pub shares_lpis: bool,
}

impl Draw {
    /// Draws a program. It first maps all devices, collections and most events.
    pub fn program(self, steps: usize, below: Below<'_>) -> Program {
        let setup = self.setup(below);
        let drawn = (0..steps).map(|_| self.step(below));
        Program { shape: self.shape, steps: setup.into_iter().chain(drawn).collect() }
    }

    fn setup(self, below: Below<'_>) -> Vec<Step> {
        if let Some(wired) = self.shape.wired {
            return wired::setup(self.shape, wired, below);
        }
        let mut steps = Vec::new();
        for device in (0..DEVICES).filter(|_| !self.shape.is_direct) {
            let collection = low(device);
            steps.push(mapd(device, if device == 0 { 14 } else { 12 }, text::itt(device)));
            steps.push(mapc(collection, collection % self.shape.cpus));
            let events = EVENTS.iter().take(EVENTS.len() - 1);
            steps.extend(
                events.map(|event| mapti(device, *event, self.lpi(device, *event), collection)),
            );
        }
        steps.into_iter().map(Step::Command).collect()
    }

    /// Returns the LPI of an event.
    fn lpi(self, device: u32, event: u32) -> u32 {
        let index = (0..).zip(EVENTS).find(|(_, other)| *other == event).map_or(0, |at| at.0);
        let own = 8 * (device % DEVICES) + index;
        let lpis = u32::try_from(self.shape.lpis).unwrap_or(u32::MAX);
        FIRST_LPI + if self.shares_lpis { own % lpis.min(6) } else { own % lpis }
    }

    /// Draws a step.
    fn step(self, below: Below<'_>) -> Step {
        if self.shape.wired.is_some() {
            return wired::step(self.shape, below);
        }
        let cpu = below(self.shape.cpus.into()) as usize;
        if self.shape.is_direct { self.direct_step(cpu, below) } else { self.its_step(cpu, below) }
    }

    fn any_lpi(self, below: Below<'_>) -> u32 {
        self.lpi(few(DEVICES, below), event(below))
    }

    fn configure(self, below: Below<'_>) -> Step {
        let configuration = CONFIGURATIONS[below(6) as usize];
        Step::Configure { lpi: self.any_lpi(below), configuration }
    }

    fn direct_step(self, cpu: usize, below: Below<'_>) -> Step {
        let lpi = self.any_lpi(below);
        match below(32) {
            0..=9 => Step::SetLpi { cpu, lpi },
            10..=12 => Step::ClearLpi { cpu, lpi },
            13 | 14 => Step::Invalidate { cpu, lpi },
            15 | 16 => Step::InvalidateAll { cpu },
            17..=19 => self.configure(below),
            20..=22 => Step::EnableLpis { cpu, enable: below(3) != 0 },
            23 => Step::Restore,
            _ => Step::Handle { cpu },
        }
    }

    fn its_step(self, cpu: usize, below: Below<'_>) -> Step {
        match below(40) {
            0..=10 => Step::Command(self.command(below)),
            11..=13 => Step::Post(self.command(below)),
            14 => Step::PostUnknown([0x00, 0x02, 0x21, 0xff][below(4) as usize]),
            15 => Step::Restore,
            16..=24 => Step::Send { device: device(below), event: event(below) },
            25 | 26 => self.configure(below),
            27 => Step::Invalidate { cpu, lpi: self.any_lpi(below) },
            28 => Step::InvalidateAll { cpu },
            29 | 30 => Step::EnableLpis { cpu, enable: below(3) != 0 },
            31 => Step::EnableIts { enable: below(3) != 0 },
            _ => Step::Handle { cpu },
        }
    }

    /// Draws a command, which may be wrong.
    pub fn command(self, below: Below<'_>) -> Command {
        let (device, event) = (device(below), event(below));
        let cpus = u32::from(self.shape.cpus);
        let mut any_cpu = || low(if below(20) == 0 { cpus } else { below(cpus) });
        let (cpu, other) = (any_cpu(), any_cpu());
        let collection = low(if below(20) == 0 { 9000 } else { few(COLLECTIONS, below) });
        let wrong = [0, 100, 8191, 65_536][below(4) as usize];
        let lpi = if below(15) == 0 { wrong } else { self.lpi(device, event) };
        match below(40) {
            0 => mapd(device, EVENT_BITS[below(8) as usize], text::itt(device)),
            1 => unmapd(device),
            2..=10 => mapti(device, event, lpi, collection),
            11 if self.shares_lpis => mapi(device, lpi, collection),
            11..=17 => movi(device, event, collection),
            18..=21 => mapc(collection, cpu),
            22 => unmapc(collection),
            23 | 24 => clear(device, event),
            25 | 26 => discard(device, event),
            27..=31 => int(device, event),
            32..=34 => movall(cpu, other),
            35 | 36 => invall(collection),
            37 => sync(cpu),
            _ => inv(device, event),
        }
    }
}

/// Draws a number below a bound. Small ones are more likely, so that steps meet each other.
fn few(bound: u32, below: Below<'_>) -> u32 {
    let most = 1 + below(bound);
    below(most)
}

fn event(below: Below<'_>) -> u32 {
    EVENTS[few(8, below) as usize]
}

/// Draws a DeviceID, which may exceed the device table.
fn device(below: Below<'_>) -> u32 {
    if below(25) == 0 { [8192, 8193, 70_000][below(3) as usize] } else { few(DEVICES, below) }
}

fn low(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

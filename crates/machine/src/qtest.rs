//! QEMU's qtest line protocol over a GICv3 and ITS in the memory map of QEMU's `virt` machine, without CPUs that
//! execute: the script that drives the registers, memory and lines of one drives the other.
//!
//! | at | is | |
//! |---|---|---|
//! | `0x08000000` | distributor | 256 SPIs, one security state |
//! | `0x08080000` | ITS | 16 bits of DeviceIDs and EventIDs |
//! | `0x080A0000` | redistributors | 123 of them; the rest from `0x40_0000_0000` on |
//! | `0x40000000` | RAM | 128 MiB, all zero |
//!
//! As in QEMU, a write to `GITS_TRANSLATER` is a message of DeviceID 0, reads where nothing is give zero, and accesses
//! are split into aligned pieces of at most 8 bytes. The objects that lines are named by are QEMU's without devices:
//! `/machine/unattached/device[N]` is CPU N, the GIC comes after the CPUs, and the ITS after the GIC.
//!
//! What QEMU's server ends with an assertion – missing or malformed arguments, lines that do not exist – is answered
//! with `FAIL` and a reason. An access moves at most 16 MiB ([`MAX_BYTES`]).
//!
//! # Example
//!
//! ```
//! use doorbell_machine::qtest::Qtest;
//!
//! let mut machine = Qtest::new(2)?;
//! assert_eq!(machine.answer("readl 0x0800ffe8").to_string(), "OK 0x000000000000003b\n");
//! assert_eq!(machine.answer("writel 0x40000000 0x01020304").to_string(), "OK\n");
//! assert_eq!(machine.answer("read 0x40000000 4").to_string(), "OK 0x04030201\n");
//! # Ok::<(), vgic::ConfigError>(())
//! ```

mod answer;
mod base64;
mod lines;
mod request;
mod server;
mod space;

pub use answer::{Answer, IrqChange, Reply};
pub use request::{MAX_BYTES, Mistake, Place};
pub use server::serve;

use lines::{Lines, Pin};
use request::{Interception, Request};
use space::Space;
use std::fmt;
use std::sync::Arc;
use vgic::its::{ItsConfig, PageSizes, TableLevels};
use vgic::{ConfigError, RedistributorRegion, Vcpu, Vgic, VgicConfig};

/// Where RAM begins.
pub const RAM_BASE: u64 = 0x4000_0000;
/// How much of it there is.
pub const RAM_BYTES: u64 = 128 << 20;
/// Redistributors that fit below the UART.
const LOW_REDISTRIBUTORS: u32 = 123;
const HIGH_REDISTRIBUTORS: u64 = 0x40_0000_0000;

/// The machine behind the protocol.
pub struct Qtest {
    space: Space,
    lines: Lines,
    vcpus: Vec<Vcpu>,
    /// Nanoseconds.
    clock: i64,
}

impl Qtest {
    /// A machine with as many CPUs.
    ///
    /// # Errors
    /// [`ConfigError`] unless there are 1 to [`vgic::MAX_CPUS`].
    pub fn new(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus))
    }

    /// A machine whose GIC differs from `virt`'s.
    ///
    /// # Errors
    /// [`ConfigError`] for a GIC that cannot be.
    pub fn with_config(config: VgicConfig) -> Result<Self, ConfigError> {
        let ram = Arc::new(space::ram());
        let (gic, vcpus) = Vgic::new(config, Arc::clone(&ram) as _, Arc::new(NobodySleeps))?;
        let lines = Lines::new(Arc::clone(&gic));
        Ok(Self { space: Space::new(gic, ram), lines, vcpus, clock: 0 })
    }

    /// Carries out one line of a script, which may end in a newline.
    pub fn answer(&mut self, line: &str) -> Answer {
        match Request::parse(line) {
            Ok(request) => self.carry_out(request),
            Err(mistake) => Reply::Fail(mistake).into(),
        }
    }

    fn carry_out(&mut self, request: Request) -> Answer {
        let reply = match request {
            Request::Load { address, bytes } => Reply::Number(self.space.load(address, bytes)),
            Request::Store { address, bytes, value } => {
                self.space.write(address, &value.to_le_bytes()[..bytes]);
                Reply::Done
            }
            Request::Read { place, form } => Reply::Bytes(self.space.read(place), form),
            Request::Write { place, data } => {
                self.space.write(place.address, &data);
                Reply::Done
            }
            Request::Fill { place, byte } => {
                self.space.write(place.address, &vec![byte; place.bytes]);
                Reply::Done
            }
            Request::Endianness => Reply::Word("little"),
            Request::ClockStep(step) => self.set_clock(step.and_then(|step| self.clock.checked_add(step))),
            Request::ClockSet(time) => self.set_clock(Some(time)),
            Request::Intercept { object, direction } => return self.intercept(&object, direction),
            Request::SetLine { object, pin, level } => return self.set_line(&object, &pin, level),
        };
        Answer { irqs: self.lines.changes_of_inputs(&mut self.vcpus), reply }
    }

    fn intercept(&mut self, object: &str, direction: Interception) -> Answer {
        let done = self.lines.intercept(object, direction);
        Answer::from(done.map_or_else(Reply::Fail, |()| Reply::Done))
    }

    fn set_line(&mut self, object: &str, pin: &Pin, level: u64) -> Answer {
        match self.lines.set(object, pin, level) {
            Ok(irq) => {
                let mut irqs: Vec<_> = irq.into_iter().collect();
                irqs.extend(self.lines.changes_of_inputs(&mut self.vcpus));
                Answer { irqs, reply: Reply::Done }
            }
            Err(mistake) => Reply::Fail(mistake).into(),
        }
    }

    /// There are no timers: the clock moves and nothing happens. It never goes back, and without a step there is no
    /// next event to go to.
    fn set_clock(&mut self, time: Option<i64>) -> Reply {
        match time.filter(|time| *time > self.clock) {
            Some(time) => {
                self.clock = time;
                Reply::Time(time)
            }
            None => Reply::Fail(Mistake::Clock),
        }
    }

    /// The CPU's half of the GIC, whose system registers the protocol does not reach.
    pub fn vcpu(&mut self, index: usize) -> Option<&mut Vcpu> {
        self.vcpus.get_mut(index)
    }

    /// The GIC.
    pub fn gic(&self) -> &Arc<Vgic> {
        self.space.gic()
    }
}

impl fmt::Debug for Qtest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qtest").field("gic", self.gic()).field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// No CPU executes, so none sleeps.
struct NobodySleeps;

impl msi_types::Kick for NobodySleeps {
    fn kick(&self, _: msi_types::Cpu) {}
}

/// The GIC of QEMU's `virt`.
pub fn virt(cpus: u16) -> VgicConfig {
    let mut config = VgicConfig::new(cpus);
    let low = u32::from(cpus).min(LOW_REDISTRIBUTORS);
    config.redistributors[0].count = low;
    if u32::from(cpus) > low {
        let RedistributorRegion { stride, .. } = config.redistributors[0];
        let high = RedistributorRegion { base: HIGH_REDISTRIBUTORS, stride, count: u32::from(cpus) - low };
        config.redistributors.push(high);
    }
    config.lpi_id_bits = Some(16);
    // What the distributor stores, however many a CPU interface has.
    config.priority_bits = 8;
    config.its.push(ItsConfig {
        page_sizes: PageSizes::Any,
        collection_table: Some(TableLevels::FlatOrTwo),
        // As QEMU's, it is done with a queue when the write that told of it is.
        work_per_access: u32::MAX,
        ..ItsConfig::new(0x0808_0000)
    });
    config
}

#[cfg(test)]
mod tests;

//! QEMU's qtest line protocol over a GICv3 and ITS in the memory map of QEMU's `virt` machine,
//! without CPUs that execute. The script that drives the registers, memory and lines of one drives
//! the other.
//!
//! | at | is | |
//! |---|---|---|
//! | `0x08000000` | distributor | 256 SPIs; one security state, or the Non-secure view of two |
//! | `0x08080000` | ITS | 16 bits of DeviceIDs and EventIDs |
//! | `0x080A0000` | redistributors | 123 of them; the rest from `0x40_0000_0000` on |
//! | `0x40000000` | RAM | 128 MiB, all zero |
//!
//! As in QEMU, a write to `GITS_TRANSLATER` is a message of DeviceID 0. Reads where nothing is give
//! zero. Accesses are split into aligned pieces of at most 8 bytes. The objects that lines are
//! named by are QEMU's without devices. `/machine/unattached/device[N]` is CPU N, the GIC comes
//! after the CPUs, and the ITS after the GIC.
//!
//! # Lines that are told
//!
//! After `irq_intercept_out GIC sysbus-irq`, `IRQ raise N` and `IRQ lower N` come before the reply
//! to the line that brought them about. Of N CPUs, lines 0 to N − 1 are their IRQs and N to 2N − 1
//! their FIQs. After `irq_intercept_in CPU`, 0 is that CPU's IRQ and 1 its FIQ; after
//! `irq_intercept_in GIC`, they are the GIC's inputs. Only one object is intercepted. QEMU 7.2
//! knows no interception of named outputs: it says `OK` and tells nothing. CPU interfaces come up
//! with both groups disabled and every priority masked, as hardware's. The protocol does not reach
//! them: nothing is asserted before [`Qtest::unmask`], or what software does on a [`Qtest::vcpu`].
//!
//! # Answers
//!
//! What QEMU's server ends with an assertion – missing or malformed arguments, lines that do not
//! exist – is answered with `FAIL` and a reason. An access moves at most 16 MiB ([`MAX_BYTES`]).
//! The clock is that of QEMU's `qtest` accelerator, without which QEMU does not know `clock_step`
//! and `clock_set`. I/O ports lead nowhere, as on every Arm machine. `module_load` fails as where
//! there is no such module. Commands of other architectures (`rtas`) are unknown.
//!
//! # Example
//!
//! ```
//! use doorbell_qtest::Qtest;
//!
//! let mut machine = Qtest::new(2)?;
//! assert_eq!(machine.answer("readl 0x0800ffe8").to_string(), "OK 0x000000000000003b\n");
//! assert_eq!(machine.answer("writel 0x40000000 0x01020304").to_string(), "OK\n");
//! assert_eq!(machine.answer("read 0x40000000 4").to_string(), "OK 0x04030201\n");
//! # Ok::<(), vgic::ConfigError>(())
//! ```

#![forbid(unsafe_code)]

mod address_space;
mod answer;
mod lines;
mod request;
mod server;

pub use address_space::{RAM_BASE, RAM_BYTES};
pub use answer::{Answer, IrqChange, Reply};
pub use request::{Form, MAX_BYTES, MemoryRange, Mistake};
pub use server::serve;

use address_space::AddressSpace;
use gic_arch::icc::{IGRPEN0, IGRPEN1, PMR};
use lines::Lines;
use request::{Pin, Request};
use std::fmt;
use std::sync::Arc;
use vgic::its::{ItsConfig, PageSizes, TableLevels};
use vgic::{ConfigError, RedistributorRegion, SecurityView, Vcpu, Vgic, VgicConfig};

/// Redistributors that fit below the UART.
const LOW_REDISTRIBUTORS: u32 = 123;
const HIGH_REDISTRIBUTORS: u64 = 0x40_0000_0000;
/// Value of an unclaimed I/O port. No port is claimed.
const NO_PORT: u32 = u32::MAX;

/// The machine behind the protocol.
pub struct Qtest {
    space: AddressSpace,
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

    /// A machine with two security states, as its kernel has it: the firmware has left all
    /// interrupts to it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn non_secure(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus).with_security(SecurityView::NonSecure))
    }

    /// A machine whose GIC differs from `virt`'s.
    ///
    /// # Errors
    /// [`ConfigError`] for a GIC that cannot be.
    pub fn with_config(config: VgicConfig) -> Result<Self, ConfigError> {
        let ram = Arc::new(address_space::ram());
        let (gic, vcpus) = Vgic::new(config, Arc::clone(&ram) as _, Arc::new(NoKick))?;
        let lines = Lines::new(Arc::clone(&gic));
        Ok(Self { space: AddressSpace::new(gic, ram), lines, vcpus, clock: 0 })
    }

    /// Lets every CPU take interrupts of all priorities and of all groups that software on it has.
    /// CPU interfaces come up with all of that off, and the protocol does not reach them.
    pub fn unmask(&mut self) {
        for vcpu in &mut self.vcpus {
            for (register, value) in
                [(PMR.encoding(), 0xff), (IGRPEN1.encoding(), 1), (IGRPEN0.encoding(), 1)]
            {
                // Of two security states Group 0 is the Secure side's, and its register UNDEFINED.
                _ = vcpu.write_sysreg(register, value);
            }
        }
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
            Request::PortIn { bytes } => Reply::Port(NO_PORT >> (32 - 8 * bytes)),
            Request::PortOut => Reply::Done,
            Request::LoadModule => Reply::Fail(Mistake::Module),
            Request::ClockStep(step) => self.step_clock(step),
            Request::ClockSet(time) => self.set_clock(time),
            Request::Intercept { object, what } => {
                self.lines.intercept(&object, &what).map_or_else(Reply::Fail, |()| Reply::Done)
            }
            Request::SetLine { object, pin, level } => return self.set_line(&object, &pin, level),
        };
        Answer { irqs: self.irq_changes(), reply }
    }

    fn set_line(&mut self, object: &str, pin: &Pin, level: u64) -> Answer {
        match self.lines.set(object, pin, level) {
            Ok(irq) => {
                let irqs = irq.into_iter().chain(self.irq_changes()).collect();
                Answer { irqs, reply: Reply::Done }
            }
            Err(mistake) => Reply::Fail(mistake).into(),
        }
    }

    /// There are no timers: without a step there is no next event to go to.
    fn step_clock(&mut self, step: Option<i64>) -> Reply {
        let Some(step) = step else { return Reply::Fail(Mistake::NoDeadline) };
        match self.clock.checked_add(step) {
            Some(time) if time > self.clock => self.set_clock(time),
            _ => Reply::Fail(Mistake::Clock),
        }
    }

    /// The clock moves and nothing happens. It never goes back.
    fn set_clock(&mut self, time: i64) -> Reply {
        self.clock = self.clock.max(time);
        if self.clock == time {
            Reply::Time(time)
        } else {
            Reply::Fail(Mistake::ClockIs(self.clock))
        }
    }

    /// Returns the changes of intercepted lines since the last answer, caused by accesses to a
    /// [`vcpu`](Self::vcpu).
    pub fn irq_changes(&mut self) -> Vec<IrqChange> {
        self.lines.changes_of_inputs(&mut self.vcpus)
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
        f.debug_struct("Qtest")
            .field("gic", self.gic())
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// No CPU executes, so none sleeps.
struct NoKick;

impl msi_types::Kick for NoKick {
    fn kick(&self, _: msi_types::Cpu) {}
}

/// The GIC of QEMU's `virt`.
pub fn virt(cpus: u16) -> VgicConfig {
    let mut config = VgicConfig::new(cpus);
    let low = u32::from(cpus).min(LOW_REDISTRIBUTORS);
    config.redistributors[0].count = low;
    if u32::from(cpus) > low {
        let high = RedistributorRegion::new(HIGH_REDISTRIBUTORS, u32::from(cpus) - low);
        config.redistributors.push(high);
    }
    config.lpi_id_bits = Some(16);
    // The distributor stores all priority bits, however many a CPU interface has.
    config.priority_bits = 8;
    // As QEMU's, the ITS is done with a queue when the write that told of it is.
    let its = ItsConfig::new(0x0808_0000)
        .with_page_sizes(PageSizes::Any)
        .with_collection_table(Some(TableLevels::FlatOrTwo))
        .with_work_per_access(u32::MAX);
    config.its.push(its);
    config
}

#[cfg(test)]
mod tests;

//! QEMU's qtest line protocol for a GICv3 and ITS in the memory map of QEMU's `virt` machine,
//! without executing CPUs. A script that accesses the registers, memory and lines of one can be
//! used on the other.
//!
//! | at | is | |
//! |---|---|---|
//! | `0x08000000` | distributor | 256 SPIs; one security state, or the Non-secure view of two |
//! | `0x08080000` | ITS | 16 bits of DeviceIDs and EventIDs |
//! | `0x080A0000` | redistributors | 123 of them; the rest from `0x40_0000_0000` on |
//! | `0x40000000` | RAM | 128 MiB, all zero |
//!
//! As in QEMU, a write to `GITS_TRANSLATER` is a message from DeviceID 0. Reads of unclaimed
//! addresses return zero. Accesses are split into aligned pieces of at most 8 bytes. Objects that
//! own lines have the same paths as in a QEMU without devices: `/machine/unattached/device[N]` is
//! CPU N, followed by the GIC after the last CPU and then the ITS.
//!
//! # Intercepted lines
//!
//! After `irq_intercept_out GIC sysbus-irq`, `IRQ raise N` and `IRQ lower N` precede the reply to
//! the line that caused them. With N CPUs, lines 0 to N − 1 are their IRQs, and lines N to 2N − 1
//! their FIQs. After `irq_intercept_in CPU`, line 0 is that CPU's IRQ and line 1 its FIQ; after
//! `irq_intercept_in GIC`, the lines are the GIC's inputs. Only one object can be intercepted. QEMU
//! 7.2 does not implement interception of named outputs: it replies `OK` and reports no changes. As
//! on hardware, CPU interfaces start with both groups disabled and every priority masked. The
//! protocol cannot access them, so nothing is asserted before [`Qtest::unmask`] is called or
//! software uses a [`Qtest::vcpu`].
//!
//! # Answers
//!
//! Where QEMU's server would abort with an assertion (missing or malformed arguments, nonexistent
//! lines), this server answers with `FAIL` and a reason. An access transfers at most 16 MiB
//! ([`MAX_BYTES`]). The clock is that of QEMU's `qtest` accelerator, without which QEMU does not
//! implement `clock_step` and `clock_set`. I/O ports are unclaimed, as on every Arm machine.
//! `module_load` fails as for a nonexistent module. Commands of other architectures (`rtas`) are
//! unknown.
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

/// Number of redistributors that fit below the UART.
const LOW_REDISTRIBUTORS: u32 = 123;
const HIGH_REDISTRIBUTORS: u64 = 0x40_0000_0000;
/// Value read from an unclaimed I/O port. All ports are unclaimed.
const NO_PORT: u32 = u32::MAX;

/// The machine behind the protocol.
pub struct Qtest {
    space: AddressSpace,
    lines: Lines,
    vcpus: Vec<Vcpu>,
    /// Time in nanoseconds.
    clock: i64,
}

impl Qtest {
    /// Creates a machine with this many CPUs.
    ///
    /// # Errors
    /// [`ConfigError`] unless `cpus` is between 1 and [`vgic::MAX_CPUS`].
    pub fn new(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus))
    }

    /// Creates a machine with two security states, in the Non-secure view of its kernel. The
    /// firmware has assigned all interrupts to Non-secure Group 1.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    pub fn non_secure(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus).with_security(SecurityView::NonSecure))
    }

    /// Creates a machine whose GIC differs from `virt`'s.
    ///
    /// # Errors
    /// [`ConfigError`] if the model cannot implement this GIC.
    pub fn with_config(config: VgicConfig) -> Result<Self, ConfigError> {
        let ram = Arc::new(address_space::ram());
        let (gic, vcpus) = Vgic::new(config, Arc::clone(&ram) as _, Arc::new(NoKick))?;
        let lines = Lines::new(Arc::clone(&gic));
        Ok(Self { space: AddressSpace::new(gic, ram), lines, vcpus, clock: 0 })
    }

    /// Lets every CPU take interrupts of all priorities and of all groups that its software can
    /// enable. CPU interfaces start with everything disabled, and the protocol cannot access them.
    pub fn unmask(&mut self) {
        for vcpu in &mut self.vcpus {
            for (register, value) in
                [(PMR.encoding(), 0xff), (IGRPEN1.encoding(), 1), (IGRPEN0.encoding(), 1)]
            {
                // With two security states, Group 0 belongs to the Secure state, and its register
                // is UNDEFINED.
                _ = vcpu.write_sysreg(register, value);
            }
        }
    }

    /// Executes one line of a script, which may end in a newline.
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

    /// Advances the clock. The machine has no timers, so a step must be given.
    fn step_clock(&mut self, step: Option<i64>) -> Reply {
        let Some(step) = step else { return Reply::Fail(Mistake::NoDeadline) };
        match self.clock.checked_add(step) {
            Some(time) if time > self.clock => self.set_clock(time),
            _ => Reply::Fail(Mistake::Clock),
        }
    }

    /// Sets the clock, without further effect. The clock cannot go backwards.
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

    /// Returns the CPU's half of the GIC, whose system registers the protocol cannot access.
    pub fn vcpu(&mut self, index: usize) -> Option<&mut Vcpu> {
        self.vcpus.get_mut(index)
    }

    /// Returns the GIC.
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

/// Has no effect, because no CPU executes and thus none sleeps.
struct NoKick;

impl msi_types::Kick for NoKick {
    fn kick(&self, _: msi_types::Cpu) {}
}

/// Returns the configuration of the GIC in QEMU's `virt`.
pub fn virt(cpus: u16) -> VgicConfig {
    let mut config = VgicConfig::new(cpus);
    let low = u32::from(cpus).min(LOW_REDISTRIBUTORS);
    config.redistributors[0].count = low;
    if u32::from(cpus) > low {
        let high = RedistributorRegion::new(HIGH_REDISTRIBUTORS, u32::from(cpus) - low);
        config.redistributors.push(high);
    }
    config.lpi_id_bits = Some(16);
    // The distributor stores all priority bits, however many a CPU interface implements.
    config.priority_bits = 8;
    // Like QEMU's, the ITS has executed the queue when the write to `GITS_CWRITER` completes.
    let its = ItsConfig::new(0x0808_0000)
        .with_page_sizes(PageSizes::Any)
        .with_collection_table(Some(TableLevels::FlatOrTwo))
        .with_work_per_access(u32::MAX);
    config.its.push(its);
    config
}

#[cfg(test)]
mod tests;

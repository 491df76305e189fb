//! QEMU's qtest line protocol for a GICv3 and ITS in the memory map of QEMU's `virt` machine. The
//! CPUs don't execute code. A script that accesses registers, memory and lines works with both QEMU
//! and this server.
//!
//! | at | is | |
//! |---|---|---|
//! | `0x08000000` | distributor | 256 SPIs; one security state, or the Non-secure view of two |
//! | `0x08080000` | ITS | 16 bits of DeviceIDs and EventIDs |
//! | `0x080A0000` | redistributors | 123 of them; the rest from `0x40_0000_0000` on |
//! | `0x40000000` | RAM | 128 MiB, all zero |
//!
//! As in QEMU, a write to `GITS_TRANSLATER` is a message from DeviceID 0. Reads of unclaimed
//! addresses return zero. Accesses are split into aligned pieces of up to 8 bytes. Objects that own
//! lines have the same paths as in a QEMU machine without devices. `/machine/unattached/device[N]`
//! is CPU N; the two numbers after the last CPU refer to the GIC and the ITS.
//!
//! # Intercepted lines
//!
//! After `irq_intercept_out GIC sysbus-irq`, `IRQ raise N` and `IRQ lower N` precede the reply to
//! the line that caused them. With N CPUs, lines 0 to N − 1 are their IRQs, and lines N to 2N − 1
//! their FIQs. After `irq_intercept_in CPU`, line 0 is that CPU's IRQ and line 1 its FIQ; after
//! `irq_intercept_in GIC`, the lines are the GIC's inputs. Only one object can be intercepted. QEMU
//! 7.2 does not implement interception of named outputs: it replies `OK` and reports no changes. As
//! on hardware, CPU interfaces start with both groups disabled and every priority masked. The
//! protocol cannot access CPU interfaces, so no line is asserted until [`Qtest::unmask`] is called
//! or the caller programs a [`Qtest::vcpu`].
//!
//! # Answers
//!
//! Where QEMU's server would abort with an assertion (missing or malformed arguments, nonexistent
//! lines), this server answers `FAIL` and a reason. An access transfers at most 16 MiB
//! ([`MAX_BYTES`]). Commands that do not concern the GIC or memory are unknown: the clock, I/O
//! ports, modules, base64.
//!
//! # Example
//!
//! ```
//! use doorbell_oracles::qtest::Qtest;
//!
//! let mut machine = Qtest::new(2)?;
//! assert_eq!(machine.answer("readl 0x0800ffe8").to_string(), "OK 0x000000000000003b\n");
//! assert_eq!(machine.answer("writel 0x40000000 0x01020304").to_string(), "OK\n");
//! assert_eq!(machine.answer("read 0x40000000 4").to_string(), "OK 0x04030201\n");
//! # Ok::<(), vgic::ConfigError>(())
//! ```

mod address_space;
mod answer;
mod lines;
mod request;
mod server;

pub use address_space::{RAM_BASE, RAM_BYTES};
pub use answer::{Answer, IrqChange, Reply};
pub use request::{MAX_BYTES, MemoryRange, Mistake};
pub use server::serve;

use address_space::AddressSpace;
use gic_arch::icc::{IGRPEN0, IGRPEN1, PMR};
use lines::Lines;
use request::{Pin, Request};
use std::sync::Arc;
use vgic::its::{ItsConfig, PageSizes, TableLevels};
use vgic::{ConfigError, RedistributorRegion, SecurityView, Vcpu, Vgic, VgicConfig};

/// Number of redistributors that fit below the UART's address.
const LOW_REDISTRIBUTORS: u32 = 123;
const HIGH_REDISTRIBUTORS: u64 = 0x40_0000_0000;
/// The machine that the protocol controls.
pub struct Qtest {
    space: AddressSpace,
    lines: Lines,
    vcpus: Vec<Vcpu>,
}

impl Qtest {
    /// Creates a machine with this many CPUs.
    ///
    /// # Errors
    /// [`ConfigError`] unless `cpus` is between 1 and [`vgic::MAX_CPUS`].
    pub fn new(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus))
    }

    /// Creates a machine with two security states, as seen by its Non-secure kernel. Firmware has
    /// assigned all interrupts to Non-secure Group 1.
    ///
    /// # Errors
    /// [`ConfigError`] unless `cpus` is between 1 and [`vgic::MAX_CPUS`].
    pub fn non_secure(cpus: u16) -> Result<Self, ConfigError> {
        Self::with_config(virt(cpus).with_security(SecurityView::NonSecure))
    }

    /// Creates a machine whose GIC differs from the GIC of QEMU's `virt` machine.
    ///
    /// # Errors
    /// [`ConfigError`] if the model cannot implement this GIC.
    pub fn with_config(config: VgicConfig) -> Result<Self, ConfigError> {
        let ram = Arc::new(address_space::ram());
        let (gic, vcpus) = Vgic::new(config, Arc::clone(&ram) as _, Arc::new(NoKick))?;
        let lines = Lines::new(Arc::clone(&gic));
        Ok(Self { space: AddressSpace::new(gic, ram), lines, vcpus })
    }

    /// Lets all CPUs take interrupts at any priority, from every group that their software can
    /// enable. CPU interfaces start with all interrupts disabled, and the protocol can't access
    /// them.
    pub fn unmask(&mut self) {
        for vcpu in &mut self.vcpus {
            for (register, value) in
                [(PMR.encoding(), 0xff), (IGRPEN1.encoding(), 1), (IGRPEN0.encoding(), 1)]
            {
                // With two security states, Group 0 belongs to the Secure state, so its register is
                // UNDEFINED here.
                _ = vcpu.write_sysreg(register, value);
            }
        }
    }

    /// Executes one line of a script. The line may end in a newline.
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
            Request::Read { place } => Reply::Bytes(self.space.read(place)),
            Request::Write { place, data } => {
                self.space.write(place.address, &data);
                Reply::Done
            }
            Request::Fill { place, byte } => {
                self.space.write(place.address, &vec![byte; place.bytes]);
                Reply::Done
            }
            Request::Endianness => Reply::Word("little"),
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

    /// Returns the changes to intercepted lines that accesses to a [`vcpu`](Self::vcpu) have caused
    /// since the last answer.
    pub fn irq_changes(&mut self) -> Vec<IrqChange> {
        self.lines.changes_of_inputs(&mut self.vcpus)
    }

    /// Returns the CPU's half of the GIC. The protocol can't access its system registers.
    pub fn vcpu(&mut self, index: usize) -> Option<&mut Vcpu> {
        self.vcpus.get_mut(index)
    }

    /// Returns the GIC.
    pub fn gic(&self) -> &Arc<Vgic> {
        self.space.gic()
    }
}

msi_types::debug_by!(Qtest as "Qtest", |it| {gic: it.gic()});

/// A kick that does nothing, because CPUs don't execute code and so never need one.
struct NoKick;

impl msi_types::Kick for NoKick {
    fn kick(&self, _: msi_types::Cpu) {}
}

/// Returns the GIC configuration of QEMU's `virt` machine.
pub fn virt(cpus: u16) -> VgicConfig {
    let mut config = VgicConfig::new(cpus);
    let low = u32::from(cpus).min(LOW_REDISTRIBUTORS);
    config.redistributors[0].count = low;
    if u32::from(cpus) > low {
        let high = RedistributorRegion::new(HIGH_REDISTRIBUTORS, u32::from(cpus) - low);
        config.redistributors.push(high);
    }
    config.lpi_id_bits = Some(16);
    // The distributor stores all priority bits, even if a CPU interface implements fewer.
    config.priority_bits = 8;
    // As in QEMU, the ITS has executed the whole queue by the time the write to `GITS_CWRITER`
    // completes.
    let its = ItsConfig::new(0x0808_0000)
        .with_page_sizes(PageSizes::Any)
        .with_collection_table(Some(TableLevels::FlatOrTwo))
        .with_work_per_access(u32::MAX);
    config.its.push(its);
    config
}

#[cfg(test)]
mod tests;

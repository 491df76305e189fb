//! The machine's interrupt controllers, and the calling CPU's interface to them.

use alloc::sync::Arc;
use gic_arch::SgiId;
use gic_bringup::{Irqchip, Options};
use gic_driver::cpu_interface::SplitEoi;
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, Gic, GicError, GicPlatform, ItsConfig};
use gic_firmware::{Controller, Description};
use image_rt::platform::{Kernel, registers};
use image_rt::{cpu, println};
use msi_types::Cpu;
use spin::Once;

/// SGI that makes a CPU leave its guest, or wake from WFI.
pub(crate) const KICK: SgiId = SgiId::new(0).expect("16 SGIs exist");

static IRQCHIP: Once<Irqchip<Kernel, SplitEoi>> = Once::new();

/// Brings up the machine's controllers and this CPU's interface. Each ITS can have up to `vpes`
/// vPEs.
pub(crate) fn bring_up(description: Description, vpes: u16) {
    let its = |_: &Controller, config: ItsConfig| config.with_vpes(vpes);
    let options = Options::bare_metal().with_max_cpus(cpu::MAX_CPUS).with_its(&its);
    let kernel = || Arc::new(Kernel);
    let irqchip = Irqchip::split(kernel(), kernel(), description, &options);
    IRQCHIP.call_once(|| irqchip.expect("the interrupt controllers could not be brought up"));
    bring_up_cpu();
}

/// Enables this CPU's interface.
pub(crate) fn bring_up_cpu() {
    get().cpu_on(here(), &registers(), |_| ()).expect("the CPU's interface could not be enabled");
}

/// Returns the machine's controllers.
pub fn get() -> &'static Irqchip<Kernel, SplitEoi> {
    IRQCHIP.get().expect("`bring_up` is called first")
}

/// Returns the machine's GIC.
pub(crate) fn gic() -> &'static Gic<Kernel> {
    get().gic().v3().expect("the GIC must be a GICv3, whose list registers are system registers")
}

/// Returns this CPU's interface.
pub(crate) fn interface() -> CpuInterface<CpuRegisters, SplitEoi> {
    CpuInterface::new(registers())
}

/// Returns the number of this CPU.
pub(crate) fn here() -> Cpu {
    GicPlatform::cpu(&Kernel)
}

/// Makes a CPU leave its guest, or wake from WFI.
pub(crate) fn kick(cpu: Cpu) {
    let affinity = gic().affinity(cpu).ok_or(GicError::UnknownCpu(cpu));
    if let Err(error) = affinity.and_then(|affinity| interface().send(KICK, affinity)) {
        println!("hypervisor: {cpu} cannot be kicked: {error}");
    }
}

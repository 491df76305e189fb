//! A kernel for QEMU's `virt` machine with a GICv3. It sends itself an SGI, and handles three ticks
//! of its timer. It keeps exceptions masked, and instead waits for each interrupt and then
//! acknowledges it. It has no heap.
#![no_std]
#![no_main]

mod virt;

use gic_arch::{Affinity, IntId, Priority, SgiId};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig};
use gic_driver::{GicCpuInterface, GicError, PrivateConfig, RedistributorRegion};
use virt::{DISTRIBUTOR, Kernel, REDISTRIBUTORS};

const TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
const SGI: SgiId = SgiId::new(3).expect("16 SGIs exist");

fn enable(registers: CpuRegisters) -> Result<(), GicError> {
    let (priority, this) = (Priority::new(0xa0), Affinity::new(0, 0, 0, 0)); // MPIDR_EL1
    let distributor = Distributor::map(&Kernel, DISTRIBUTOR)?;
    distributor.init(&Kernel, DistributorConfig::new(priority, this))?;
    let region = RedistributorRegion::new(REDISTRIBUTORS);
    let redistributor = gic_driver::find_redistributor(&Kernel, &[region], this)?;
    redistributor.wake(&Kernel)?;
    redistributor.init(&Kernel, PrivateConfig::new(priority, distributor.view()))?;
    let interface = <CpuInterface<_>>::enable(registers, CpuInterfaceConfig::default())?;
    redistributor.interrupt(TIMER)?.enable();
    redistributor.interrupt(SGI.intid())?.enable();
    interface.send(SGI, this)
}

/// Called by the start code. When this function returns, the machine is turned off.
#[unsafe(no_mangle)]
extern "C" fn main() {
    // SAFETY: `virt` has a GICv3, and this code runs at EL1.
    let registers = unsafe { CpuRegisters::new() };
    if enable(registers).is_err() {
        return virt::print("the GIC does not work\n");
    }
    virt::start_timer();
    let mut ticks = 0;
    while ticks < 3 {
        virt::wait_for_interrupt();
        <CpuInterface<_>>::new(registers).handle_pending(|interrupt| {
            if interrupt == TIMER {
                virt::print("tick\n");
                ticks += 1;
                virt::start_timer();
            } else {
                virt::print("an SGI\n");
            }
        });
    }
}

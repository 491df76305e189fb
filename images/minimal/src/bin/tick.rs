//! A minimal kernel with interrupts on a GICv3. It handles three timer ticks and has no heap.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use gic_arch::{Affinity, IntId, Priority};
use gic_driver::{CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig};
use gic_driver::{GicCpuInterface, GicError, PhysicalRegion, PrivateConfig};
use gic_driver::{RedistributorRegion, find_redistributor};
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, power, println, start};
image_rt::image!(main);

const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
static TICKS: AtomicU32 = AtomicU32::new(0);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the unchanged argument, and this is the first call.
    let gic = unsafe { start::start(boot) }.gic.expect("the devicetree describes no GIC");
    exceptions::set_irq_handler(|| {
        <CpuInterface<_>>::new(registers()).handle_pending(|intid| {
            assert_eq!(intid, VIRTUAL_TIMER);
            TICKS.fetch_add(1, Ordering::Relaxed);
            cpu::start_virtual_timer_in(10);
        });
    });
    enable_timer(gic).expect("the timer could not be enabled");
    cpu::start_virtual_timer_in(10);
    cpu::irq_enable();
    assert!(cpu::wait_until(5000, || TICKS.load(Ordering::Relaxed) >= 3), "no tick");
    println!(r#"{{"minimal":{{"ticked":{{"times":3}}}}}}"#);
    power::system_off()
}

fn enable_timer([gicd, redistributors]: [PhysicalRegion; 2]) -> Result<(), GicError> {
    let (priority, this) = (Priority::new(0xa0), Affinity::from_mpidr(cpu::mpidr()));
    let distributor = Distributor::map(&Kernel, gicd.base)?;
    distributor.init(&Kernel, DistributorConfig::new(priority, this))?;
    let region = RedistributorRegion::new(redistributors);
    let redistributor = find_redistributor(&Kernel, &[region], this)?;
    redistributor.wake(&Kernel)?;
    redistributor.init(&Kernel, PrivateConfig::new(priority, distributor.view()))?;
    <CpuInterface<_>>::enable(registers(), CpuInterfaceConfig::default())?;
    redistributor.interrupt(VIRTUAL_TIMER)?.enable();
    Ok(())
}

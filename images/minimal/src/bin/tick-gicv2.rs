//! A minimal kernel with interrupts on a GICv2. It handles three timer ticks and has no heap.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};
use gic_arch::IntId;
use gic_driver::{GicCpuInterface, GicV2, GicV2Config};
use image_rt::platform::Kernel;
use image_rt::{Boot, cpu, exceptions, power, println, start};
use msi_types::Cpu;
image_rt::image!(main);

const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
static GIC: spin::Once<GicV2<Kernel>> = spin::Once::new();
static TICKS: AtomicU32 = AtomicU32::new(0);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `start` is called only once.
    let [gicd, interface] =
        unsafe { start::start(boot) }.gic.expect("the devicetree describes no GIC");
    let (config, this) = (GicV2Config::new(gicd.base, interface.base, 1), Cpu::new(0));
    let gic = GIC.call_once(|| GicV2::new(Kernel, config, this).expect("the GIC is not a GICv2"));
    gic.cpu_on(this).expect("this CPU's interface could not be enabled");
    gic.interrupt(VIRTUAL_TIMER).expect("INTID 27 is a PPI").enable();
    exceptions::set_irq_handler(|| {
        GIC.get().expect("the GIC is up").cpu_interface().handle_pending(|intid| {
            assert_eq!(intid, VIRTUAL_TIMER);
            TICKS.fetch_add(1, Ordering::Relaxed);
            cpu::start_virtual_timer_in(10);
        });
    });
    cpu::start_virtual_timer_in(10);
    cpu::irq_enable();
    assert!(cpu::wait_until(5000, || TICKS.load(Ordering::Relaxed) >= 3), "no tick");
    println!(r#"{{"minimal":{{"ticked":{{"times":3}}}}}}"#);
    power::system_off()
}

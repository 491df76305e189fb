//! The smallest kernel with interrupts: its timer ticks three times.
#![no_std]
#![no_main]

extern crate alloc;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use gic_arch::IntId;
use gic_bringup::Irqchip;
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, power, println, start};
use msi_types::{Cpu, Trigger};
image_rt::image!(main);

const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("there are 16");
static IRQCHIP: spin::Once<Irqchip<Kernel>> = spin::Once::new();
static TICKS: AtomicU32 = AtomicU32::new(0);

fn main(boot: Boot) -> ! {
    // SAFETY: what the loader handed over, before anything else.
    let blob = unsafe { start::start(boot) }.devicetree;
    let firmware = gic_firmware::devicetree::parse(blob).expect("a devicetree");
    let irqchip = Irqchip::new(Arc::new(Kernel), Arc::new(Kernel), firmware).expect("a GIC");
    let irqchip = IRQCHIP.call_once(|| irqchip);
    irqchip.cpu_on(Cpu::new(0), &registers(), |_| ()).expect("this CPU's interface");
    exceptions::set_irq_handler(|| {
        let unhandled = |vector, why| panic!("interrupt {vector}: {why:?}");
        IRQCHIP.get().expect("it is up").handle_irq(Cpu::new(0), &registers(), unhandled);
    });
    let timer = irqchip.interrupts().request_per_cpu(
        VIRTUAL_TIMER.hwirq(),
        Trigger::Level,
        "timer",
        |_| {
            TICKS.fetch_add(1, Ordering::Relaxed);
            cpu::start_virtual_timer_in(10);
        },
    );
    timer.as_ref().expect("the timer's interrupt").enable_here();
    cpu::start_virtual_timer_in(10);
    cpu::irq_enable();
    assert!(cpu::wait_until(5000, || TICKS.load(Ordering::Relaxed) >= 3), "no tick");
    println!("ok - three ticks of the timer");
    power::system_off()
}

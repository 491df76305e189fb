//! The panic handler.

use crate::{console, cpu, power, println};
use core::sync::atomic::{AtomicBool, Ordering};

/// Ends the image after printing a line that every runner treats as a failure.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if !PANICKED.swap(true, Ordering::Relaxed) {
        console::break_lock();
        println!("not ok - the image: {info}");
        power::system_off()
    }
    loop {
        cpu::wait_for_interrupt();
    }
}

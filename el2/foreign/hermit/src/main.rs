//! A program on Hermit. Several tasks sleep and yield; at the end, Hermit prints how many
//! interrupts it took. Hermit's boot loader is replaced by the module `loader`, because the program
//! and the kernel are a single flat image.
#![no_std]
#![no_main]

extern crate hermit;

mod loader;

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use hermit::println;
use hermit::syscalls::{sys_exit, sys_join, sys_spawn2, sys_usleep, sys_yield};

/// Number of tasks, and how often each sleeps and yields.
const TASKS: u16 = 4;
const SLEEPS: u32 = 200;
const YIELDS: u32 = 10;
/// Duration of the shortest sleep, in microseconds.
const SLEEP: u64 = 10_000;
const STACK: usize = 64 << 10;
const PRIORITY: u8 = 2;

/// Number of completed sleeps.
static SLEPT: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
extern "C" fn runtime_entry(_: i32, _: *const *const u8, _: *const *const u8) -> ! {
    println!("guest: begin");
    let tasks: [_; TASKS as usize] = core::array::from_fn(|task| {
        // SAFETY: the function accepts any argument.
        unsafe { sys_spawn2(sleep, task, PRIORITY, STACK, 0) }
    });
    for task in tasks {
        sys_join(task);
    }
    println!("guest: slept {}", SLEPT.load(SeqCst));
    sys_exit(0)
}

/// Sleeps and yields alternately.
unsafe extern "C" fn sleep(task: usize) {
    for _ in 0..SLEEPS {
        sys_usleep(SLEEP + 100 * task as u64);
        SLEPT.fetch_add(1, SeqCst);
        for _ in 0..YIELDS {
            sys_yield();
        }
    }
}

//! A kernel for QEMU's `virt` machine with a GICv3: it sends itself an SGI, and its timer ticks
//! three times. Exceptions stay masked; it takes interrupts where it waits for them. No heap.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::ptr::NonNull;
use gic_arch::{Affinity, IntId, Priority, SgiId};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig};
use gic_driver::{GicCpuInterface, GicError, IrqState, LocalCpu, PhysicalRegion, Platform};
use gic_driver::{PrivateConfig, RawMmio, RedistributorRegion, Wait, find_redistributor};

// As the devicetree says.
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTORS: PhysicalRegion = PhysicalRegion { base: 0x080a_0000, bytes: 0xf6_0000 };
const CONSOLE: *mut u32 = 0x0900_0000 as *mut u32;
const TIMER: IntId = IntId::ppi(11).expect("there are 16");
const SGI: SgiId = SgiId::new(3).expect("there are 16");

// The loader starts here. Compiled code wants a stack and the vector registers.
global_asm!(
    ".global _start",
    "_start: mov x0, #3 << 20",
    "msr cpacr_el1, x0",
    "isb",
    "adrp x0, stack_end",
    "add sp, x0, :lo12:stack_end",
    "b {main}",
    ".bss",
    ".balign 16",
    ".space 65536",
    "stack_end:",
    main = sym main,
);

struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0) // exceptions are always masked
    }
    fn irq_restore(&self, _: IrqState) {}
}

impl Platform for Kernel {
    type Mmio = RawMmio;

    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        let base = NonNull::new(region.base as *mut u8)?;
        // SAFETY: without the MMU all memory is device memory, and the driver alone uses this.
        Some(unsafe { RawMmio::new(base, usize::try_from(region.bytes).ok()?) })
    }
    fn wait(&self, turn: u32) -> Wait {
        if turn < 10_000_000 { Wait::Again } else { Wait::GiveUp }
    }
}

fn enable(registers: CpuRegisters) -> Result<(), GicError> {
    let (priority, this) = (Priority::new(0xa0), Affinity::new(0, 0, 0, 0)); // MPIDR_EL1
    let distributor = Distributor::map(&Kernel, DISTRIBUTOR)?;
    distributor.init(&Kernel, DistributorConfig::new(priority, this))?;
    let region = RedistributorRegion::new(REDISTRIBUTORS);
    let redistributor = find_redistributor(&Kernel, &[region], this)?;
    redistributor.wake(&Kernel)?;
    redistributor.init(&Kernel, PrivateConfig::new(priority, distributor.view()))?;
    let interface = <CpuInterface<_>>::enable(registers, CpuInterfaceConfig::default())?;
    redistributor.interrupt(TIMER)?.enable();
    redistributor.interrupt(SGI.intid())?.enable();
    interface.send(SGI, this)
}

extern "C" fn main() -> ! {
    // SAFETY: `virt` has a GICv3, and this is EL1.
    let registers = unsafe { CpuRegisters::new() };
    if enable(registers).is_err() {
        print("the GIC does not work\n");
        power_off();
    }
    start_timer();
    let mut ticks = 0;
    while ticks < 3 {
        // SAFETY: it waits for an interrupt.
        unsafe { asm!("wfi") };
        <CpuInterface<_>>::new(registers).handle_pending(|interrupt| {
            if interrupt == TIMER {
                print("tick\n");
                ticks += 1;
                start_timer();
            } else {
                print("an SGI\n");
            }
        });
    }
    power_off()
}

/// The virtual timer rings in 2^20 ticks of the counter.
fn start_timer() {
    // SAFETY: nothing else uses the timer.
    unsafe {
        asm!("msr cntv_tval_el0, {}", "msr cntv_ctl_el0, {}", in(reg) 1_u64 << 20, in(reg) 1_u64);
    }
}

fn print(text: &str) {
    // SAFETY: the UART's data register is there, and takes any byte.
    text.bytes().for_each(|byte| unsafe { CONSOLE.write_volatile(byte.into()) });
}

/// By PSCI's `SYSTEM_OFF`.
fn power_off() -> ! {
    // SAFETY: the call does not return.
    unsafe { asm!("hvc #0", in("w0") 0x8400_0008_u32, options(noreturn)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print("panic\n");
    power_off()
}

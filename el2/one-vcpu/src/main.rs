//! A hypervisor on `el2-cpu` for one guest with one vCPU, which owns QEMU's `virt`, except for its
//! GIC. The loader places the guest's program in memory. The guest stops by HVC.
//!
//! The `unsafe` code starts the image, and runs the guest within the RAM and the UART that stage 2
//! maps.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec;
use el2_cpu::syndrome::Trap;
use el2_cpu::{Context, Hardware, Memory, Ram, Registers, Start, TranslationTables};
use el2_cpu::{Vector, Vmid, Wfi, inject};
use gic_arch::{Affinity, IntId};
use gic_driver::cpu_interface::SplitEoi;
use gic_driver::{CpuInterface, Gic, GicConfig, GicError, PhysicalRegion, RedistributorRegion};
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, power, println, start};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::{ListRegisterVcpu, PhysicalInterrupts, Vgic, VgicConfig, VirtualInterface};

image_rt::image!(main);

const UART: u64 = 0x900_0000;
const GUEST_RAM: u64 = 0x4000_0000;
const GUEST_START: u64 = GUEST_RAM + 0x8_0000;
/// PPIs of the virtual interface's maintenance interrupt and of the virtual timer (DEN 0094).
const MAINTENANCE: IntId = IntId::ppi(9).expect("16 PPIs exist");
const TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
const TIMER_LINE: Line = Line::Ppi { cpu: Cpu::new(0), intid: TIMER.get() };

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the unchanged argument, and this is the first call.
    let regions = unsafe { start::start(boot) }.gic.expect("the devicetree describes no GIC");
    cpu::irq_save();
    let gic = Arc::new(bring_up(regions).expect("the GIC could not be brought up"));
    let ram = Ram::new(GUEST_RAM, 0x5000_0000..0x5400_0000);
    let (vgic, mut vcpu) = create(gic.clone(), ram.clone());
    let mut registers = Registers::starting(Start { entry: GUEST_START, argument: 0 });
    load(&ram, &registers);
    let mut exits = 0;
    let end = loop {
        exits += 1;
        match run(&mut vcpu, &mut registers.context) {
            Vector::Interrupt => take(&gic, &vgic),
            Vector::Synchronous => match Trap::of_last_exit() {
                Trap::HypervisorCall => break "HVC",
                trap => handle(trap, &vgic, &mut vcpu, &mut registers.context),
            },
            Vector::SystemError => break "SError",
        }
    };
    println!("one-vcpu: the guest ended by {end} after {exits} exits");
    power::system_off()
}

/// Brings up the machine's GIC with EOImode 1, and enables the interrupts that are handled.
fn bring_up([distributor, redistributors]: [PhysicalRegion; 2]) -> Result<Gic<Kernel>, GicError> {
    let regions = vec![RedistributorRegion::new(redistributors)];
    let cpus = vec![Affinity::from_mpidr(cpu::mpidr())];
    let gic = Gic::new(Arc::new(Kernel), GicConfig::new(distributor.base, regions, cpus))?;
    gic.cpu_on_with::<_, SplitEoi>(Cpu::new(0), &registers())?;
    for intid in [MAINTENANCE, TIMER] {
        gic.interrupt(intid)?.enable();
    }
    Ok(gic)
}

/// Creates the guest's GIC, and links its timer interrupt to the machine's.
fn create(gic: Arc<Gic<Kernel>>, ram: Ram) -> (Arc<Vgic>, ListRegisterVcpu) {
    let vtr = Hardware::here().vtr;
    let config = VgicConfig::new(1)
        .with_priority_bits(vtr.pri_bits_minus_one() + 1)
        .with_awake_redistributors(true);
    // The only vCPU is never in the guest when the model kicks it.
    let kick = Arc::new(|_: Cpu| ());
    let (vgic, mut vcpus) = Vgic::new(config, Arc::new(ram), kick).expect("the heap suffices");
    let vcpu = vcpus.remove(0).with_list_registers(vtr).expect("the priority bits are the CPU's");
    vgic.serve_physical(Arc::new(Physical(gic))).expect("this is the first call");
    vgic.link(TIMER_LINE, TIMER).expect("the guest's GIC has this PPI");
    (vgic, vcpu)
}

/// The machine's interrupts that the guest's are linked to.
struct Physical(Arc<Gic<Kernel>>);

impl PhysicalInterrupts for Physical {
    fn level(&self, _: Line, physical: IntId) -> Level {
        let is_pending = self.0.interrupt(physical).is_ok_and(|it| it.is_pending());
        if is_pending { Level::High } else { Level::Low }
    }

    fn deactivate(&self, _: Line, physical: IntId) {
        if let Ok(interrupt) = self.0.interrupt(physical) {
            interrupt.deactivate();
        }
    }
}

/// Prepares the CPU and loads the vCPU, its timers last.
fn load(ram: &Ram, registers: &Registers) {
    let mut tables = TranslationTables::stage_2();
    tables.map_ram(ram);
    tables.map_page(UART, UART, Memory::Device);
    let vttbr = tables.vttbr(Vmid::of_guest(0).expect("guest 0 has a VMID"));
    // SAFETY: interrupts are masked, no vCPU was loaded before, and stage 2 maps only RAM and the
    // UART, which belong to the guest.
    unsafe {
        el2_cpu::prepare(Wfi::Idles);
        el2_cpu::load_stage2(vttbr, 0);
        registers.load();
    }
}

/// Runs the guest until its next exit.
fn run(vcpu: &mut ListRegisterVcpu, context: &mut Context) -> Vector {
    let (hardware, mut left) = (Hardware::here(), VirtualInterface::empty());
    let inside = vcpu.enter();
    let used = hardware.load(inside.interface());
    // SAFETY: `load` loaded the vCPU, which is the only one.
    let vector = unsafe { el2_cpu::enter(context) };
    hardware.store(used, &mut left);
    inside.exit(&left);
    vector
}

/// Takes the machine's interrupts. The timer's stays active until the guest has handled it.
fn take(gic: &Gic<Kernel>, vgic: &Vgic) {
    let interface = CpuInterface::<_, SplitEoi>::new(registers());
    while let Some(interrupt) = interface.acknowledge() {
        let ended = gic.end(&interface, interrupt);
        if ended.intid() == TIMER {
            ended.hand_over();
            vgic.set_line(TIMER_LINE, Level::High);
        } else {
            gic.deactivate(&interface, ended);
        }
    }
}

/// Handles a trapped instruction. An instruction that the guest's machine doesn't support causes an
/// exception in the guest.
fn handle(trap: Trap, vgic: &Vgic, vcpu: &mut ListRegisterVcpu, context: &mut Context) {
    match trap {
        Trap::Device(access) => {
            let read = |address, width| vgic.read(address, width).ok();
            let write = |address, width, value| vgic.write(address, width, value).ok();
            if context.emulate_access(access, read, write).is_none() {
                inject::data_abort(context, access.virtual_address);
            }
        }
        Trap::SystemRegister(access) => {
            if context.emulate_register(access, vcpu).is_none() {
                inject::undefined(context);
            }
        }
        Trap::CacheMaintenance => context.skip_instruction(),
        Trap::Undescribed(access) => inject::data_abort(context, access.virtual_address),
        Trap::Abort { address } => inject::data_abort(context, address),
        Trap::Fetch { address, .. } => inject::fetch_abort(context, address),
        _ => inject::undefined(context),
    }
}

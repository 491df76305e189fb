//! A CPU's work: its vCPU, from on to off, again and again.

use crate::context::{self, Context};
use crate::guest::Guest;
use crate::interrupts;
use crate::power::Start;
use crate::stage2::VTCR;
use crate::traps::{self, End, Next};
use crate::vectors::{self, Vector};
use crate::virtual_interface::Hardware;
use image_rt::{cpu, power, println};
use msi_types::Cpu;
use vgic::{ListRegisterVcpu, Sleep};

/// Runs the vCPU of the CPU that executes this, whose interrupts are masked.
pub(crate) fn run(guest: &'static Guest) -> ! {
    cpu::irq_save();
    vectors::install();
    let (cpu, hardware) = (interrupts::here(), Hardware::here());
    let vcpu = guest.take_vcpu(cpu).expect("a vCPU for each CPU");
    let mut vcpu = vcpu.with_list_registers(hardware.vtr).expect("the CPU's virtual interface");
    loop {
        let start = wait_for_start(guest, cpu);
        vcpu = run_until_off(guest, vcpu, hardware, start);
        cpu::stop_virtual_timer();
        vcpu.reset();
        guest.power.turn_off(cpu);
    }
}

fn wait_for_start(guest: &Guest, cpu: Cpu) -> Start {
    loop {
        if let Some(start) = guest.power.take_request(cpu) {
            return start;
        }
        cpu::wait_for_interrupt();
        interrupts::take();
    }
}

fn run_until_off(
    guest: &Guest,
    mut vcpu: ListRegisterVcpu,
    hardware: Hardware,
    start: Start,
) -> ListRegisterVcpu {
    // SAFETY: the guest's tables map its own RAM and its UART, and never change.
    unsafe { context::reset_el1(guest.mpidr(vcpu.cpu()), guest.vttbr, VTCR) };
    let cpu = vcpu.cpu();
    let mut context = Context::starting(start.entry, start.argument);
    loop {
        guest.gate.enter(cpu);
        let (inside, interface) = vcpu.enter();
        hardware.load(&interface);
        // SAFETY: `reset_el1` gave EL1 to the guest, and `run` installed the vectors.
        let vector = unsafe { vectors::enter(&mut context) };
        vcpu = inside.exit(&hardware.store());
        guest.gate.leave(cpu);
        let next = match vector {
            Vector::Synchronous => traps::handle(guest, &mut context, &mut vcpu),
            Vector::Interrupt => Next::Resume,
            Vector::SystemError => Next::End(End::SystemError),
        };
        interrupts::take();
        match next {
            Next::Resume => {}
            Next::Wait => wait(&mut vcpu),
            Next::Off => return vcpu,
            Next::End(end) => end_machine(end),
        }
    }
}

/// WFI: until an interrupt is there for the guest, or the model has something to do.
fn wait(vcpu: &mut ListRegisterVcpu) {
    while vcpu.prepare_to_sleep() == Sleep::Ready {
        cpu::wait_for_interrupt();
        vcpu.returned();
        interrupts::take();
    }
}

fn end_machine(end: End) -> ! {
    match end {
        End::Off => println!("hypervisor: the guest turned its machine off"),
        End::SystemError => println!("hypervisor: the guest's machine failed with an SError"),
        End::Reset => println!("hypervisor: the guest reset its machine"),
    }
    power::system_off()
}

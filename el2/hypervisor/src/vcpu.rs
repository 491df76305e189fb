//! A vCPU's time on a CPU: from loaded to put aside.

use crate::context::{self, Context, El1, Registers, Wfi};
use crate::guest::{self, Guest, Vcpu};
use crate::hypervisor_timer::NEVER;
use crate::power::End;
use crate::recorder::Recorder;
use crate::scheduler::{self, Entity, Leave, VcpuId};
use crate::traps::{self, Next};
use crate::vectors::{self, Vector};
use crate::virtual_interface::Hardware;
use crate::{interrupts, irqchip, moving, quick};
use image_rt::cpu;
use vgic::{InGuest, ListRegisterVcpu, Sleep};

/// Runs vCPUs on the CPU that executes this.
pub(crate) fn serve() -> ! {
    cpu::irq_save();
    vectors::install();
    prepare_cpu();
    scheduler::set_timer();
    loop {
        interrupts::take();
        // SAFETY: the other CPUs stand still, and each CPU has put its vCPU aside.
        if moving::stand_still(|| unsafe { guest::move_all() }) {
            scheduler::set_timer();
        }
        let next = scheduler::next();
        match next.and_then(|(id, entity)| Some((id, guest::guests().get(id.guest)?, entity))) {
            Some((id, guest, entity)) => run(id, guest, entity),
            None => scheduler::idle(),
        }
    }
}

/// Gives EL1 of the CPU that executes this to guests. Where each vCPU has a CPU, no other vCPU
/// wants the CPU of one that waits.
fn prepare_cpu() {
    let shared = scheduler::vcpus() > irqchip::get().cpus().count();
    // SAFETY: no vCPU is loaded.
    unsafe { context::prepare_cpu(if shared { Wfi::Traps } else { Wfi::Idles }) };
    Hardware::here().clear();
}

/// The reason for which a vCPU that is loaded stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// Its turn or its machine is over.
    Preempted,
    /// It waits for an interrupt, and another vCPU wants the CPU.
    Waits,
    /// It goes off.
    Off,
}

/// Runs a vCPU, which this CPU has, until it leaves.
fn run(id: VcpuId, guest: &Guest, entity: &Entity) {
    // The reasons of earlier kicks are found below. `leave` looks for later kicks.
    entity.forget_kicks();
    let Some(Vcpu { interrupts, registers }) = guest.take_vcpu(id.cpu) else { return };
    let registers = match guest.power.take_request(id.cpu) {
        Some(start) => Some(Registers::starting(start)),
        None => registers,
    };
    let Some(mut registers) = registers else {
        guest.put_vcpu(id.cpu, Vcpu { interrupts, registers });
        scheduler::leave(id, Leave::Waits { deadline: NEVER });
        return;
    };
    load(id, guest, &registers);
    let (mut interrupts, stop) = run_loaded(guest, entity, interrupts, &mut registers.context);
    registers.floats.store();
    registers.el1 = El1::store();
    interrupts::put_timer();
    let deadline = registers.el1.timer_deadline();
    let registers = if stop == Stop::Off {
        interrupts.reset();
        None
    } else {
        Some(registers)
    };
    guest.put_vcpu(id.cpu, Vcpu { interrupts, registers });
    scheduler::leave(
        id,
        match stop {
            _ if guest.end().is_some() => Leave::Ended,
            Stop::Preempted => Leave::Preempted,
            Stop::Waits => Leave::Waits { deadline },
            Stop::Off => {
                guest.power.turn_off(id.cpu);
                Leave::Waits { deadline: NEVER }
            }
        },
    );
}

fn load(id: VcpuId, guest: &Guest, registers: &Registers) {
    registers.floats.load();
    // SAFETY: the guest's tables map its own RAM and its devices, and never change. The CPU's EL1
    // is nobody's now.
    unsafe {
        context::load_stage2(guest.vttbr, guest.mpidr(id.cpu));
        if !guest.ran_last_here(id.cpu) {
            context::forget_translations();
        }
        interrupts::load_timer(guest, id.cpu);
        registers.el1.load();
    }
}

fn run_loaded(
    guest: &Guest,
    entity: &Entity,
    mut vcpu: ListRegisterVcpu,
    context: &mut Context,
) -> (ListRegisterVcpu, Stop) {
    let (cpu, hardware) = (vcpu.cpu(), Hardware::here());
    let (mut recorder, mut left) = (Recorder::new(guest, cpu), Hardware::empty());
    vcpu.returned();
    while guest.end().is_none() && !scheduler::is_turn_over() {
        guest.gate.enter(cpu);
        entity.forget_kicks();
        let inside = vcpu.enter();
        let used = hardware.load(inside.interface());
        recorder.filled(inside.interface());
        let exit = run_guest(guest, entity, context, &inside, &mut recorder);
        hardware.store(used, &mut left);
        recorder.left(inside.interface(), &left);
        vcpu = inside.exit(&left);
        guest.gate.leave(cpu);
        let next = match exit {
            Some(Vector::Synchronous) => traps::handle(guest, context, &mut vcpu),
            Some(Vector::Interrupt) => {
                interrupts::take();
                Next::Resume
            }
            Some(Vector::SystemError) => Next::End(End::SystemError),
            None => {
                // Work that is left may keep the vCPU out of its guest for long.
                recorder.goes();
                interrupts::take();
                recorder.goes_on("kick");
                Next::Resume
            }
        };
        guest.print_faults();
        match next {
            Next::Resume => {}
            Next::Wait => {
                if wait(guest, entity, &mut vcpu, &mut recorder) == Sleep::Ready {
                    return (vcpu, Stop::Waits);
                }
            }
            Next::Off => return (vcpu, Stop::Off),
            Next::End(end) => guest.end_by(end),
        }
    }
    (vcpu, Stop::Preempted)
}

/// Runs guest code up to an exit that is more than a moment's. `None`: the vCPU was kicked by what
/// this CPU did itself.
fn run_guest(
    guest: &Guest,
    entity: &Entity,
    context: &mut Context,
    vcpu: &InGuest,
    recorder: &mut Recorder<'_>,
) -> Option<Vector> {
    while !entity.is_kicked() {
        recorder.goes();
        // SAFETY: `load` gave EL1 to the guest, and the scheduler installed the vectors.
        let vector = unsafe { vectors::enter(context) };
        recorder.exited(vector, context);
        if vector != Vector::Synchronous || !quick::handle(guest, context, vcpu) {
            return Some(vector);
        }
    }
    None
}

/// WFI: until an interrupt is there for the guest, or the model has something to do.
/// [`Sleep::Ready`]: another vCPU wants the CPU first.
fn wait(
    guest: &Guest,
    entity: &Entity,
    vcpu: &mut ListRegisterVcpu,
    recorder: &mut Recorder<'_>,
) -> Sleep {
    loop {
        entity.forget_kicks();
        if vcpu.prepare_to_sleep() == Sleep::DontSleep {
            return Sleep::DontSleep;
        }
        if scheduler::is_wanted() || guest.end().is_some() {
            return Sleep::Ready;
        }
        if !entity.is_kicked() {
            recorder.goes();
            scheduler::idle();
            recorder.goes_on("wake-up");
            interrupts::take();
        }
        vcpu.returned();
        // The reason of the kick is found as it enters the guest: WFI may end without it, too.
        if entity.is_kicked() && !scheduler::is_wanted() {
            return Sleep::DontSleep;
        }
    }
}

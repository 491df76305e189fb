//! Runs vCPUs on a CPU, from loading to unloading.

use crate::guest::{self, Guest, Vcpu};
use crate::injection::Injection;
use crate::power::{End, Next};
use crate::recorder::Recorder;
use crate::scheduler::{self, Entity, Leave, VcpuId};
use crate::{direct, interrupts, irqchip, messages, moving, quick, traps};
use alloc::boxed::Box;
use el2_cpu::{Context, Hardware, NEVER, Registers, Start, Vector, Wfi};
use gic_driver::cpu_interface::Acknowledged;
use image_rt::cpu;
use vgic::{InGuest, ListRegisterVcpu, Sleep, VirtualInterface};

/// Runs vCPUs on the calling CPU.
pub(crate) fn serve() -> ! {
    cpu::irq_save();
    prepare_cpu();
    scheduler::set_timer();
    loop {
        interrupts::take();
        // SAFETY: the other CPUs are paused, and all CPUs have unloaded their vCPUs.
        if moving::stand_still(|| unsafe { guest::move_all(direct::around_move) }) {
            scheduler::set_timer();
        }
        let next = scheduler::next();
        match next.and_then(|(id, entity)| Some((id, guest::guests().get(id.guest)?, entity))) {
            Some((id, guest, entity)) => run(id, guest, entity),
            None => scheduler::idle(),
        }
    }
}

/// Prepares the calling CPU to run guests at EL1. If each vCPU has its own CPU, a vCPU in WFI may
/// keep its CPU, because no other vCPU needs it.
fn prepare_cpu() {
    let shared = scheduler::vcpus() > irqchip::get().cpus().count();
    // SAFETY: no vCPU is loaded, and `serve` masked interrupts.
    unsafe { el2_cpu::prepare(if shared { Wfi::Traps } else { Wfi::Idles }) };
}

/// Reason why a loaded vCPU stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// The vCPU must let other vCPUs run, or its machine has been turned off.
    Preempted,
    /// The vCPU waits for an interrupt, and another vCPU needs the CPU. Its vPE has left the CPU.
    Waits,
    /// The vCPU is turned off, and then starts if stated.
    Off(Option<Start>),
}

/// Runs a vCPU that this CPU has dequeued, until it leaves the CPU.
fn run(id: VcpuId, guest: &Guest, entity: &Entity) {
    // The checks below see the interrupts and requests of earlier kicks. `leave` checks for later
    // kicks.
    entity.forget_kicks();
    let Some(mut vcpu) = guest.take_vcpu(id.cpu) else { return };
    if let Some(start) = guest.power.take_request(id.cpu) {
        vcpu.registers = Some(Registers::starting(start));
    }
    let Vcpu { interrupts, registers: Some(registers), injection } = &mut *vcpu else {
        put(id, guest, vcpu);
        scheduler::leave(id, Leave::Waits { deadline: NEVER });
        return;
    };
    load(id, guest, registers);
    let direct = injection.as_deref();
    direct::load(direct, id.cpu);
    let stop = run_loaded(guest, entity, direct, interrupts, &mut registers.context);
    if stop != Stop::Waits {
        direct::put(direct, id.cpu);
    }
    registers.store();
    interrupts::put_timers();
    let deadline = registers.timer_deadline();
    if let Stop::Off(_) = stop {
        interrupts.reset();
        vcpu.registers = None;
        guest.cut_power(id.cpu);
    }
    put(id, guest, vcpu);
    scheduler::leave(
        id,
        match stop {
            _ if guest.end().is_some() => Leave::Ended,
            Stop::Preempted => Leave::Preempted,
            Stop::Waits => Leave::Waits { deadline },
            Stop::Off(start) => {
                guest.power.turn_off(id.cpu);
                start.map(|start| guest.start(id.cpu, start));
                Leave::Waits { deadline: NEVER }
            }
        },
    );
}

/// Stores a vCPU that is not loaded. The last one of a guest that has ended frees its vPEs.
fn put(id: VcpuId, guest: &Guest, mut vcpu: Box<Vcpu>) {
    if guest.end().is_some() {
        // Another vCPU may already have removed the guest's injection, which this copy would keep.
        vcpu.injection = None;
    }
    guest.put_vcpu(id.cpu, vcpu);
    if guest.end().is_some() && guest.is_unloaded() {
        direct::end(guest);
    }
}

fn load(id: VcpuId, guest: &Guest, registers: &Registers) {
    // SAFETY: the guest's tables map only its own RAM and its devices. No vCPU's EL1 state is
    // loaded.
    unsafe {
        el2_cpu::load_stage2(guest.vttbr, guest.mpidr(id.cpu));
        if !guest.ran_last_here(id.cpu) {
            el2_cpu::forget_translations();
        }
        interrupts::load_timers(guest, id.cpu);
        registers.load();
    }
}

fn run_loaded(
    guest: &Guest,
    entity: &Entity,
    direct: Option<&Injection>,
    vcpu: &mut ListRegisterVcpu,
    context: &mut Context,
) -> Stop {
    let (cpu, hardware) = (vcpu.cpu(), Hardware::here());
    let (mut recorder, mut left) = (Recorder::new(&guest.exits), VirtualInterface::empty());
    vcpu.returned();
    while !must_leave_cpu(guest) {
        let Some(mut inside) = enter(guest, entity, vcpu) else {
            take_interrupts(&mut recorder);
            // If each look of the vCPU that closed the gate fell into one of this vCPU's attempts,
            // both would wait forever.
            while guest.gate.is_closed() && !must_leave_cpu(guest) {
                take_interrupts(&mut recorder);
            }
            continue;
        };
        let mut loaded = Loaded { hardware, used: hardware.load(inside.interface()) };
        let exit = run_guest(guest, entity, context, &mut inside, &mut loaded, &mut recorder);
        hardware.store(loaded.used, &mut left);
        recorder.left(inside.interface(), &left);
        inside.exit(&left);
        guest.gate.leave(cpu);
        let next = match exit {
            Some(Vector::Synchronous) => {
                // Otherwise, the guest repeats the access.
                let Some(next) = handle(guest, context, vcpu, &mut recorder) else { break };
                next
            }
            Some(Vector::Interrupt) => {
                interrupts::take();
                Next::Resume
            }
            Some(Vector::SystemError) => Next::End(End::SystemError),
            None => {
                // Remaining work may keep the vCPU out of guest mode for a long time.
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
                direct::wait(direct, cpu);
                if wait(guest, entity, direct, vcpu, &mut recorder) == Sleep::Ready {
                    return Stop::Waits;
                }
                direct::load(direct, cpu);
            }
            Next::Off(start) => return Stop::Off(start),
            Next::End(end) => guest.end_by(end),
        }
    }
    Stop::Preempted
}

/// Returns `true` if the vCPU must leave its CPU. A vCPU must check this between taking interrupts
/// and entering its guest: one of them may be the kick for a vCPU that needs the CPU.
#[expect(clippy::inline_always, reason = "keeps switches between vCPUs free of calls")]
#[inline(always)]
fn must_leave_cpu(guest: &Guest) -> bool {
    guest.end().is_some() || scheduler::is_turn_over()
}

/// Enters guest mode. Returns `None` if another vCPU keeps this one out.
#[inline]
fn enter<'a>(
    guest: &Guest,
    entity: &Entity,
    vcpu: &'a mut ListRegisterVcpu,
) -> Option<InGuest<'a>> {
    let cpu = vcpu.cpu();
    if !guest.gate.enter(cpu) {
        return None;
    }
    entity.forget_kicks();
    let inside = guest.do_work(|| vcpu.enter());
    if inside.is_none() {
        guest.gate.leave(cpu);
    }
    inside
}

/// Handles a synchronous exception of the guest. Returns `None` if the vCPU must leave its CPU
/// before it can handle an access.
#[inline]
fn handle(
    guest: &Guest,
    context: &mut Context,
    vcpu: &mut ListRegisterVcpu,
    recorder: &mut Recorder<'_>,
) -> Option<Next> {
    if !traps::is_abort() {
        return Some(traps::handle(guest, context, vcpu));
    }
    let cpu = vcpu.cpu();
    while !guest.lock.ask(cpu) {
        if must_leave_cpu(guest) {
            guest.lock.stop_asking(cpu);
            return None;
        }
        take_interrupts(recorder);
    }
    let next = traps::handle(guest, context, vcpu);
    guest.lock.release();
    Some(next)
}

/// Handles interrupts while the vCPU waits for another vCPU of its guest.
#[cold]
#[inline(never)]
fn take_interrupts(recorder: &mut Recorder<'_>) {
    recorder.goes();
    interrupts::take();
    recorder.goes_on("wait for another vCPU");
}

/// The CPU's list registers, of which the first `used` may contain interrupts.
struct Loaded {
    hardware: Hardware,
    used: usize,
}

impl Loaded {
    /// Acknowledges an interrupt that is pending at this CPU. If it is a message for the guest,
    /// moves its LPI into a list register, or signals it to the guest's GIC if that is not
    /// possible. Records describe the ordinary path alone.
    ///
    /// # Errors
    /// The LPI isn't in a list register. The caller must handle the interrupt if it isn't a
    /// message.
    #[inline]
    fn take_message(
        &mut self,
        guest: &Guest,
        vcpu: &mut InGuest<'_>,
        recorder: &Recorder<'_>,
    ) -> Result<(), Option<Acknowledged>> {
        if recorder.is_on() {
            return Err(None);
        }
        let interrupt = irqchip::interface().acknowledge().ok_or(None)?;
        let Some(vector) = messages::of(interrupt.intid(), guest.number) else {
            return Err(Some(interrupt));
        };
        interrupts::end_lpi(interrupt);
        let mut is_listed = false;
        vector.signal(&mut |from, message| {
            let (vmcr, empty) = (self.hardware.vmcr(), self.hardware.empty());
            match vcpu.list_message(from, message, vmcr, empty) {
                Some(index) => {
                    self.used = self.hardware.load_one(vcpu.interface(), index, self.used);
                    is_listed = true;
                }
                None => vcpu.returned(),
            }
            is_listed
        });
        if is_listed { Ok(()) } else { Err(None) }
    }

    /// Loads the interrupts that have arrived, if the list registers are empty. Returns `false` if
    /// the vCPU must exit.
    fn list_arrivals(&mut self, vcpu: &mut InGuest<'_>, recorder: &mut Recorder<'_>) -> bool {
        let empty = self.hardware.empty();
        if empty.trailing_ones() < self.used as u32 {
            return false;
        }
        let before = recorder.copy(vcpu.interface());
        let is_listed = vcpu.list_arrivals(self.hardware.vmcr(), empty);
        if let Some(before) = before {
            recorder.listed_again(&before, vcpu.interface(), is_listed);
        }
        if is_listed {
            self.used = self.used.max(self.hardware.load_list(vcpu.interface()));
        }
        is_listed
    }
}

/// Runs guest code until the vCPU must leave guest mode. Returns the last exit, or `None` if a kick
/// followed it.
fn run_guest(
    guest: &Guest,
    entity: &Entity,
    context: &mut Context,
    vcpu: &mut InGuest<'_>,
    loaded: &mut Loaded,
    recorder: &mut Recorder<'_>,
) -> Option<Vector> {
    loop {
        let mut last = None;
        while !entity.is_kicked() {
            recorder.goes();
            // SAFETY: `load` loaded the EL1 state of the guest, and `serve` prepared the CPU.
            let vector = unsafe { el2_cpu::enter(context) };
            recorder.exited(vector);
            match vector {
                Vector::Synchronous if quick::handle(guest, context, vcpu) => {}
                // A maintenance interrupt stays asserted until the vCPU leaves guest mode.
                Vector::Interrupt if !loaded.hardware.needs_maintenance() => {
                    let Err(first) = loaded.take_message(guest, vcpu, recorder) else { continue };
                    vcpu.returned();
                    first.into_iter().for_each(interrupts::serve_one);
                    interrupts::take();
                    // A vCPU in WFI may take interrupts for long without leaving guest mode.
                    guest.print_faults();
                    last = Some(vector);
                    break;
                }
                _ => return Some(vector),
            }
        }
        // The checks below see the causes of the kicks that this forgets.
        entity.forget_kicks();
        let must_leave =
            scheduler::is_contended() || guest.gate.is_closed() || guest.end().is_some();
        if must_leave || !loaded.list_arrivals(vcpu, recorder) || entity.is_kicked() {
            return last;
        }
    }
}

/// Handles WFI: waits until an interrupt is signaled to the guest, or until the model has work to
/// do. Returns [`Sleep::Ready`] if another vCPU needs the CPU before that.
fn wait(
    guest: &Guest,
    entity: &Entity,
    direct: Option<&Injection>,
    vcpu: &mut ListRegisterVcpu,
    recorder: &mut Recorder<'_>,
) -> Sleep {
    let cpu = vcpu.cpu();
    loop {
        entity.forget_kicks();
        let sleep = guest.do_work(|| vcpu.prepare_to_sleep());
        if sleep != Some(Sleep::Ready) || direct::may_be_pending(direct, cpu) {
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
        // The next guest entry handles the cause of the kick. WFI may complete without an
        // interrupt.
        if entity.is_kicked() && !scheduler::is_wanted() {
            return Sleep::DontSleep;
        }
    }
}

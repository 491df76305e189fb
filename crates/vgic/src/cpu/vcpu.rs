//! One vCPU's half of the model: its CPU interface, owned by the vCPU's thread.

use crate::config::SecurityView;
use crate::cpu::cpu_interface::CpuInterface;
use crate::cpu::listed::ListRegisters;
use crate::lpi::{PendingLpis, ReadyLpi};
use crate::vgic::Vgic;
use crate::wakeup::{VcpuWakeup, WakeupWord};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use crate::wired::{Group, Private, participation};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;
use doorbell_fallible::OutOfMemory;
use gic_arch::icc::{Igrpen, Sgi};
use gic_arch::{IntId, IntIdClass, Lpi, Priority};
use msi_types::Cpu;

/// A vCPU's CPU interface. There is one value per vCPU, handed out when the [`Vgic`] is made; the
/// vCPU's thread owns it. Nothing here waits for another thread; what accesses left over is skipped
/// while another thread is at work on it.
pub struct Vcpu {
    pub(crate) cpu: Cpu,
    pub(crate) gic: Arc<Vgic>,
    /// That of `gic`: an entry into the guest looks at little else than this and the word.
    pub(crate) wakeup: Arc<VcpuWakeup>,
    pub(crate) own: OwnParts,
    pub(crate) interface: CpuInterface,
    pub(crate) lpis: Option<PendingLpis>,
    pub(crate) list_registers: ListRegisters,
    /// Memory for this value, so that boxing it cannot fail. A vCPU with list registers is handed
    /// on at each entry and exit, and is boxed for that.
    memory: Vec<Self>,
}

/// The parts of the shared half that are one vCPU's, at hand without a search.
pub(crate) struct OwnParts {
    pub(crate) wakeup: Arc<WakeupWord>,
    pub(crate) private: Arc<Private>,
}

/// The interrupt inputs of a PE.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inputs {
    /// IRQ: Group 1 has an interrupt that preempts.
    pub irq: bool,
    /// FIQ: Group 0 has.
    pub fiq: bool,
}

impl Inputs {
    /// Is either asserted?
    pub const fn any(self) -> bool {
        self.irq || self.fiq
    }
}

/// Permission of a vCPU to sleep or to enter the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// Nothing is to be signalled: whatever comes from now on kicks the vCPU, once.
    Ready,
    /// An interrupt is there; a kick for it may still be on its way. Or accesses left work over, of
    /// which the vCPU has done a piece: the guest goes on, or the caller asks again.
    DontSleep,
}

impl Sleep {
    const fn of(left: bool) -> Self {
        if left { Self::Ready } else { Self::DontSleep }
    }
}

/// The most urgent pending interrupt, from wherever it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct MostUrgent {
    priority: Priority,
    intid: IntId,
    group: Group,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Wired(WiredIndex, InterruptWord),
    Lpi,
}

/// Most restarts of an acknowledgement that lost its interrupt to another thread. Each time another
/// thread made progress; a guest that retracts interrupts in a loop gets "spurious" in the end.
const ATTEMPTS: usize = 64;

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu")
            .field("cpu", &self.cpu)
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

impl Vcpu {
    pub(crate) fn new(
        cpu: Cpu,
        gic: Arc<Vgic>,
        own: OwnParts,
        interface: CpuInterface,
        lpis: Option<PendingLpis>,
    ) -> Result<Self, OutOfMemory> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(1)?;
        let (wakeup, list_registers) = (Arc::clone(&gic.wakeup), ListRegisters::none());
        Ok(Self { cpu, gic, wakeup, own, interface, lpis, list_registers, memory })
    }

    /// Moves this into the memory that it has for that.
    pub(crate) fn boxed(mut self) -> Box<[Self; 1]> {
        let mut memory = core::mem::take(&mut self.memory);
        memory.push(self);
        let Ok(boxed) = memory.into_boxed_slice().try_into() else {
            unreachable!("one value was pushed")
        };
        boxed
    }

    /// Takes this out of its memory, and keeps that.
    pub(crate) fn unboxed(boxed: Box<[Self; 1]>) -> Self {
        let mut memory = (boxed as Box<[Self]>).into_vec();
        let Some(mut vcpu) = memory.pop() else { unreachable!("it is one") };
        vcpu.memory = memory;
        vcpu
    }

    /// Is the PE's IRQ input asserted?
    pub fn irq_pending(&mut self) -> bool {
        self.inputs().irq
    }

    /// Returns the PE's interrupt inputs. At most one is asserted: the most urgent pending
    /// interrupt decides.
    pub fn inputs(&mut self) -> Inputs {
        self.gic.go_on();
        match self.signalled().map(|candidate| candidate.group) {
            None => Inputs::default(),
            Some(Group::One) => Inputs { irq: true, fiq: false },
            Some(Group::Zero) => Inputs { irq: false, fiq: true },
        }
    }

    /// The vCPU is about to sleep (WFI), or to run guest code in which it does not look at
    /// [`inputs`](Self::inputs) by itself. After [`Sleep::Ready`] the first interrupt to arrive
    /// calls [`Kick::kick`](msi_types::Kick::kick), once; call [`returned`](Self::returned) when
    /// the vCPU is back.
    pub fn prepare_to_sleep(&mut self) -> Sleep {
        self.leave_unless(|vcpu| vcpu.inputs().any())
    }

    /// The vCPU is about to power down until an interrupt wakes it (`PSCI_CPU_SUSPEND`): its CPU
    /// interface takes no part. As [`prepare_to_sleep`](Self::prepare_to_sleep), but the
    /// redistributor's `WakeRequest` counts: an enabled interrupt is pending here, of a group that
    /// the distributor forwards. The CPU interface's masks do not matter, nor whether `GICR_WAKER`
    /// says that the PE sleeps. Afterwards the vCPU starts with [`reset`](Self::reset).
    ///
    /// A vCPU that is off (`PSCI_CPU_OFF`) is not woken by interrupts; what is pending stays so
    /// until it is on again. [`reset`](Self::reset) it as it goes off: others then take the 1-of-N
    /// interrupts that were chosen for it.
    pub fn prepare_to_power_down(&mut self) -> Sleep {
        self.leave_unless(Self::wake_requested)
    }

    fn leave_unless(&mut self, finds: impl FnOnce(&mut Self) -> bool) -> Sleep {
        let word = Arc::clone(&self.own.wakeup);
        Sleep::of(word.leave_unless(|| finds(self) || self.wakeup.has_work()))
    }

    fn wake_requested(&mut self) -> bool {
        self.gic.go_on();
        let wired = self.gic.wired();
        let mut requested = false;
        wired.ready(self.cpu, |_, state| requested |= wired.forwards(Group::of(state)));
        let lpis = wired.forwards(Group::One).then_some(self.lpis.as_mut()).flatten();
        requested || lpis.is_some_and(|lpis| lpis.highest(Priority::IDLE).is_some())
    }

    /// The vCPU is about to run guest code, with these inputs asserted. Whatever arrives later
    /// kicks it, once; call [`returned`](Self::returned) when the guest has exited.
    pub fn enter_guest(&mut self) -> Inputs {
        self.own.wakeup.leave();
        let inputs = self.inputs();
        self.exit_for_work();
        inputs
    }

    /// The vCPU has left for the guest: if work is left over, it is kicked at once.
    pub(crate) fn exit_for_work(&self) {
        if self.wakeup.has_work() {
            self.wakeup.kick(self.cpu);
        }
    }

    /// The vCPU is back from sleep or from the guest, kicked or not: it looks at its inputs by
    /// itself again.
    pub fn returned(&mut self) {
        self.own.wakeup.returned();
    }

    /// Puts the CPU interface into its state after reset. Interrupts keep theirs: those that were
    /// active stay so. The redistributor wakes if
    /// [`VgicConfig::awake_redistributors`](crate::VgicConfig::awake_redistributors) is set, and
    /// otherwise keeps its state.
    pub fn reset(&mut self) {
        self.wakeup.pass_work_on();
        if self.gic.config().resets_awake() {
            self.gic.wired().set_participation(self.cpu, participation::AWAKE, 0);
        }
        self.interface = CpuInterface::new(self.interface.features());
        for group in [Group::Zero, Group::One] {
            self.publish(group);
        }
    }

    /// Acknowledges the most urgent pending interrupt, if it is in `group` and preempts what runs.
    pub(crate) fn acknowledge(&mut self, group: Group) -> Option<IntId> {
        match self.acknowledge_lpi(group) {
            Some(lpi) => Some(lpi.intid()),
            None => self.acknowledge_any(group),
        }
    }

    /// Acknowledges an LPI where nothing wired has to be looked at: the short way of most
    /// interrupts. After `None`, [`acknowledge_any`](Self::acknowledge_any) finds what there is.
    #[inline]
    fn acknowledge_lpi(&mut self, group: Group) -> Option<Lpi> {
        let wired = self.gic.wired();
        let private = &*self.own.private;
        let is_awake = private.participation.load(SeqCst) & participation::AWAKE != 0;
        let is_forwarded = is_awake && wired.forwards(group);
        if group != Group::One || !is_forwarded || !private.candidates.is_empty() {
            return None;
        }
        let ready = self.lpis.as_mut()?.take(self.interface.limit(group))?;
        self.interface.activate(ready.priority, group);
        Some(ready.lpi)
    }

    #[inline(never)]
    fn acknowledge_any(&mut self, group: Group) -> Option<IntId> {
        for _ in 0..ATTEMPTS {
            let taken = if let Some(lpi) = self.take_lpi(group) {
                Some(lpi)
            } else {
                let candidate = self.signalled().filter(|candidate| candidate.group == group)?;
                self.take(candidate)
            };
            if let Some(taken) = taken {
                self.interface.activate(taken.priority, group);
                return Some(taken.intid);
            }
        }
        None
    }

    /// Takes an LPI that is more urgent than everything wired, in one go. It passes mask and binary
    /// point: what is in its group and less urgent could not either.
    fn take_lpi(&mut self, group: Group) -> Option<MostUrgent> {
        let forwarded = self.forwarded();
        if group != Group::One || self.lpis.is_none() || !forwarded[group.index()] {
            return None;
        }
        let wired = self
            .most_urgent_wired(forwarded)
            .map_or(Priority::IDLE, |candidate| candidate.priority);
        let than = wired.min(self.interface.limit(group));
        let ready = self.lpis.as_mut()?.take(than)?;
        Some(Self::lpi_candidate(ready))
    }

    /// Takes the pending state of what was found, or of an LPI that became pending meanwhile and is
    /// no less urgent. `None` if it is gone.
    fn take(&mut self, candidate: MostUrgent) -> Option<MostUrgent> {
        match candidate.source {
            Source::Wired(index, state) => {
                self.gic.wired().acknowledge(self.cpu, index, state).then_some(candidate)
            }
            Source::Lpi => {
                let less_urgent = Priority::new(candidate.priority.get().saturating_add(1));
                let ready = self.lpis.as_mut()?.take(less_urgent)?;
                Some(Self::lpi_candidate(ready))
            }
        }
    }

    /// The most urgent pending interrupt of the groups that are enabled, if it is in `group`. Masks
    /// and what runs do not matter: `ICC_HPPIR<n>_EL1`.
    pub(crate) fn highest(&mut self, group: Group) -> Option<IntId> {
        self.most_urgent()
            .filter(|candidate| candidate.group == group)
            .map(|candidate| candidate.intid)
    }

    /// The guest ends an interrupt of `group`: `ICC_EOIR<n>_EL1`. What is not in the group that
    /// runs, and special numbers, are ignored.
    pub(crate) fn end(&mut self, group: Group, intid: IntId) {
        if intid.class() == IntIdClass::Special || !self.interface.drop_priority(group) {
            return;
        }
        // LPIs have no active state.
        if !self.interface.splits_eoi() && intid.class() != IntIdClass::Lpi {
            self.gic.wired().deactivate(self.cpu, intid);
        }
    }

    /// The guest deactivates an interrupt: `ICC_DIR_EL1`. Without `EOImode`, it is ignored.
    pub(crate) fn deactivate(&mut self, intid: IntId) {
        if self.interface.splits_eoi() {
            self.gic.wired().deactivate(self.cpu, intid);
        }
    }

    /// The guest sends an SGI. From the Non-secure side, only those of its own group leave: the
    /// Secure side would have to permit others (`GICR_NSACR`).
    pub(crate) fn send(&self, sgi: Sgi, group: Group) {
        let permitted =
            group == Group::One || self.interface.features().security == SecurityView::Single;
        if permitted {
            self.gic.wired().send_sgi(self.cpu, sgi, group);
        }
    }

    /// `ICC_IGRPEN<n>_EL1`.
    pub(crate) fn enable_group(&mut self, group: Group, enable: Igrpen) {
        self.interface.set_takes(group, enable);
        self.publish(group);
    }

    /// Tells the distributor whether this PE takes the group: 1-of-N interrupts go elsewhere if
    /// not.
    pub(crate) fn publish(&self, group: Group) {
        let bit = participation::GROUP[group.index()];
        if self.interface.takes(group) {
            self.gic.wired().set_participation(self.cpu, bit, 0);
        } else {
            self.gic.wired().set_participation(self.cpu, 0, bit);
        }
    }

    /// The interrupt that the PE is signalled now.
    fn signalled(&mut self) -> Option<MostUrgent> {
        self.most_urgent().filter(|found| self.interface.signals(found.priority, found.group))
    }

    /// The most urgent pending interrupt of the groups that are forwarded; of several, the one with
    /// the lowest INTID (LPIs among themselves: any).
    fn most_urgent(&mut self) -> Option<MostUrgent> {
        if self.has_nothing() {
            return None;
        }
        let forwarded = self.forwarded();
        let wired = self.most_urgent_wired(forwarded);
        if !forwarded[Group::One.index()] {
            return wired;
        }
        let lpi = self.lpis.as_mut().and_then(|lpis| lpis.highest(Priority::IDLE));
        match (wired, lpi.map(Self::lpi_candidate)) {
            (Some(wired), Some(lpi)) if lpi.precedes(wired) => Some(lpi),
            (wired, lpi) => wired.or(lpi),
        }
    }

    /// Is nothing pending here, of any group? A load for each kind. `false` may be wrong.
    #[inline]
    pub(crate) fn has_nothing(&self) -> bool {
        self.own.private.candidates.is_empty()
            && self.lpis.as_ref().is_none_or(PendingLpis::is_empty)
    }

    fn most_urgent_wired(&self, forwarded: [bool; 2]) -> Option<MostUrgent> {
        let mut best: Option<MostUrgent> = None;
        self.gic.wired().ready(self.cpu, |index, state| {
            let group = Group::of(state);
            let found = MostUrgent {
                priority: state.priority(),
                intid: index.intid(),
                group,
                source: Source::Wired(index, state),
            };
            if forwarded[group.index()] && best.is_none_or(|best| found.precedes(best)) {
                best = Some(found);
            }
        });
        best
    }

    /// Groups that the distributor and the CPU interface have enabled.
    pub(crate) fn forwarded(&self) -> [bool; 2] {
        let [zero, one] = self.distributed();
        [zero && self.interface.takes(Group::Zero), one && self.interface.takes(Group::One)]
    }

    /// Groups that the distributor and the redistributor forward to the CPU interface. A
    /// redistributor that sleeps forwards nothing.
    pub(crate) fn distributed(&self) -> [bool; 2] {
        let wired = self.gic.wired();
        let awake = self.own.private.participation.load(SeqCst) & participation::AWAKE != 0;
        [Group::Zero, Group::One].map(|group| awake && wired.forwards(group))
    }

    fn lpi_candidate(ready: ReadyLpi) -> MostUrgent {
        MostUrgent {
            priority: ready.priority,
            intid: ready.lpi.intid(),
            group: Group::One,
            source: Source::Lpi,
        }
    }

    /// Number of this vCPU.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The shared half.
    pub fn vgic(&self) -> &Arc<Vgic> {
        &self.gic
    }
}

impl MostUrgent {
    /// Is this one served first?
    fn precedes(self, other: Self) -> bool {
        (self.priority, self.intid) < (other.priority, other.intid)
    }
}

//! The vCPU half of the model: a CPU interface owned by the vCPU's thread.

#![expect(clippy::inline_always, reason = "keeps the fast path of an acknowledgment free of calls")]

use crate::config::SecurityView;
use crate::cpu::listed::ListRegisters;
use crate::cpu_interface::CpuInterface;
use crate::lpi::{PendingLpis, ReadyLpi};
use crate::vgic::Vgic;
use crate::wakeup::{VcpuWakeup, WakeupWord};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use crate::wired::{Private, participation, send_sgi};
use alloc::sync::Arc;
use core::ops::ControlFlow;
use gic_arch::icc::{Igrpen, Sgi};
use gic_arch::{IntId, IntIdClass, Lpi, Priority};
use msi_types::{Cpu, explain::Group};

/// A vCPU's CPU interface. [`Vgic::new`] returns exactly one per vCPU, and the vCPU's thread owns
/// it. Methods never wait for other threads: if another thread is already doing the work that
/// register accesses have deferred, the method leaves that work to it.
///
/// The exit handler of a vCPU's thread:
///
/// ```
/// use gic_arch::icc::SysRegEncoding;
/// use vgic::{Sleep, Undefined, Vcpu};
///
/// enum Exit {
///     Msr(SysRegEncoding, u64),
///     Wfi,
/// }
///
/// fn handle(exit: Exit, vcpu: &mut Vcpu) -> Result<(), Undefined> {
///     match exit {
///         Exit::Msr(register, value) => vcpu.write_sysreg(register, value)?,
///         Exit::Wfi => {
///             while vcpu.prepare_to_sleep() == Sleep::Ready {
///                 std::thread::park(); // until a kick unparks this thread
///                 vcpu.returned();
///             }
///         }
///     }
///     Ok(())
/// }
/// ```
#[doc(alias = "vgic_cpu")]
pub struct Vcpu {
    pub(crate) cpu: Cpu,
    pub(crate) gic: Arc<Vgic>,
    /// Wake-up state from `gic`, cached because a guest entry accesses little else of the shared
    /// state.
    pub(crate) wakeup: Arc<VcpuWakeup>,
    pub(crate) own: OwnParts,
    pub(crate) interface: CpuInterface,
    pub(crate) lpis: Option<PendingLpis>,
    pub(crate) list_registers: ListRegisters,
    /// Wired interrupt that the fast path acknowledged last, with the word that this stored.
    pub(crate) taken: Option<(WiredIndex, InterruptWord)>,
}

/// References to one vCPU's parts of the shared half, so that we don't have to look them up.
pub(crate) struct OwnParts {
    pub(crate) wakeup: Arc<WakeupWord>,
    pub(crate) private: Arc<Private>,
}

/// The interrupt inputs of a PE.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inputs {
    /// IRQ: a Group 1 interrupt preempts the running priority.
    pub irq: bool,
    /// FIQ: a Group 0 interrupt preempts the running priority.
    pub fiq: bool,
}

impl Inputs {
    /// Returns `true` if either input is asserted.
    pub const fn any(self) -> bool {
        self.irq || self.fiq
    }
}

/// Result of a vCPU's attempt to sleep or to enter the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// The vCPU may sleep. The next interrupt to arrive kicks the vCPU once.
    Ready,
    /// The vCPU must not sleep. Either an interrupt is pending (its kick may still be in flight),
    /// or register accesses deferred work and this call has done a piece of it. The caller should
    /// run the guest, or try again.
    DontSleep,
}

impl Sleep {
    const fn of(left: bool) -> Self {
        if left { Self::Ready } else { Self::DontSleep }
    }
}

/// Guard that reports the vCPU as returned when it is dropped.
struct Returned<'a>(&'a WakeupWord);

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.0.returned();
    }
}

/// The highest-priority pending interrupt and its source.
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

/// Maximum number of times to restart an acknowledgment whose interrupt another thread has changed
/// concurrently. Each restart means that another thread made progress. A guest that retracts
/// interrupts in a loop will eventually read a spurious interrupt.
const ATTEMPTS: usize = 64;

msi_types::debug_by!(Vcpu as "Vcpu", |it| {cpu: it.cpu, interface: it.interface});

impl Vcpu {
    pub(crate) fn new(
        cpu: Cpu,
        gic: Arc<Vgic>,
        own: OwnParts,
        interface: CpuInterface,
        lpis: Option<PendingLpis>,
    ) -> Self {
        let (wakeup, list_registers) = (Arc::clone(&gic.wakeup), ListRegisters::none());
        let vcpu = Self { cpu, gic, wakeup, own, interface, lpis, list_registers, taken: None };
        vcpu.publish_interface();
        vcpu
    }

    /// Returns `true` if the PE's IRQ input is asserted.
    pub fn irq_pending(&mut self) -> bool {
        self.inputs().irq
    }

    /// Returns the state of the PE's interrupt inputs. At most one input is asserted, for the
    /// highest-priority pending interrupt.
    pub fn inputs(&mut self) -> Inputs {
        self.gic.go_on();
        match self.signaled().map(|candidate| candidate.group) {
            None => Inputs::default(),
            Some(Group::One) => Inputs { irq: true, fiq: false },
            Some(Group::Zero) => Inputs { irq: false, fiq: true },
        }
    }

    /// Prepares to sleep (WFI), or to run guest code during which the vCPU does not poll its
    /// [`inputs`](Self::inputs). After [`Sleep::Ready`], the first interrupt to arrive calls
    /// [`Kick::kick`](msi_types::Kick::kick), once. When the vCPU has woken or exited the guest,
    /// the caller must call [`returned`](Self::returned).
    pub fn prepare_to_sleep(&mut self) -> Sleep {
        self.leave_unless(|vcpu| vcpu.inputs().any())
    }

    /// Prepares to power down until an interrupt wakes the vCPU (`PSCI_CPU_SUSPEND`). Unlike in
    /// [`prepare_to_sleep`](Self::prepare_to_sleep), the CPU interface is not involved. Instead,
    /// the vCPU is woken by the redistributor's `WakeRequest`, i.e. by any enabled interrupt that
    /// is pending for this vCPU in a group that the distributor forwards. The CPU interface's masks
    /// and `GICR_WAKER.ProcessorSleep` don't matter. Afterwards, the caller must
    /// [`reset`](Self::reset) the vCPU before it starts.
    ///
    /// Interrupts do not wake a vCPU that is off (`PSCI_CPU_OFF`); they stay pending until it is on
    /// again. The caller must [`reset`](Self::reset) a vCPU when it powers off, so that other vCPUs
    /// take over its 1-of-N interrupts, and the commands that waited for its list registers.
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
        wired.ready(self.cpu, |_, state| requested |= wired.forwards(state.group()));
        let lpis = wired.forwards(Group::One).then_some(self.lpis.as_mut()).flatten();
        requested || lpis.is_some_and(|lpis| lpis.highest(Priority::IDLE).is_some())
    }

    /// Prepares to run guest code, and returns the inputs to assert. Interrupts that arrive later
    /// kick the vCPU, once. After the guest has exited, the caller must call
    /// [`returned`](Self::returned).
    pub fn enter_guest(&mut self) -> Inputs {
        self.own.wakeup.leave();
        let inputs = self.inputs();
        self.exit_for_work();
        inputs
    }

    /// Calls [`enter_guest`](Self::enter_guest), then `run` with the inputs to assert, then
    /// [`returned`](Self::returned), even if `run` panics. `run` must run the guest until it exits.
    pub fn run_guest<R>(&mut self, run: impl FnOnce(Inputs) -> R) -> R {
        let inputs = self.enter_guest();
        let _returned = Returned(&self.own.wakeup);
        run(inputs)
    }

    /// Kicks the vCPU immediately if deferred work remains. Called after the vCPU has declared that
    /// it is entering the guest.
    pub(crate) fn exit_for_work(&self) {
        if self.wakeup.has_work() {
            self.wakeup.kick(self.cpu);
        }
    }

    /// Reports that the vCPU has returned from sleep or from the guest, kicked or not. The vCPU
    /// won't be kicked again until it next sleeps or enters the guest. Until then, its thread must
    /// poll the inputs.
    pub fn returned(&mut self) {
        self.own.wakeup.returned();
    }

    /// Resets the CPU interface. Interrupts keep their state, including the active state. The
    /// redistributor wakes if
    /// [`VgicConfig::awake_redistributors`](crate::VgicConfig::awake_redistributors) is set, and
    /// otherwise keeps its state.
    pub fn reset(&mut self) {
        self.wakeup.pass_work_on();
        if self.gic.config().resets_awake() {
            self.gic.wired().set_participation(self.cpu, participation::AWAKE, 0);
        }
        self.interface = CpuInterface::new(self.interface.features());
        self.publish_interface();
        for group in [Group::Zero, Group::One] {
            self.publish(group);
        }
    }

    /// Fast path of [`acknowledge`](Self::acknowledge) for Group 1, which must follow after
    /// [`ControlFlow::Continue`]: acknowledges an LPI if no wired interrupt is a candidate.
    #[inline(always)]
    pub(crate) fn acknowledge_first(&mut self) -> ControlFlow<Option<Lpi>> {
        let (private, wired, interface) = (&*self.own.private, self.gic.wired(), &self.interface);
        if !private.candidates.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(lpis) = &mut self.lpis else { return ControlFlow::Break(None) };
        let is_forwarded = || private.is_awake() && wired.forwards(Group::One);
        let than = || if is_forwarded() { interface.limit(Group::One) } else { Priority::HIGHEST };
        lpis.take_first(than).map_break(|ready| ready.map(|ready| self.activate_lpi(ready)))
    }

    /// Acknowledges the highest-priority pending interrupt, if it is in `group` and preempts the
    /// running priority.
    pub(crate) fn acknowledge(&mut self, group: Group) -> Option<IntId> {
        if !self.own.private.candidates.is_empty() {
            return self.acknowledge_wired(group);
        }
        let is_forwarded = group == Group::One && self.is_distributed(group);
        let lpis = self.lpis.as_mut().filter(|_| is_forwarded)?;
        let ready = lpis.take(self.interface.limit(group))?;
        Some(self.activate_lpi(ready).intid())
    }

    #[inline(always)]
    fn activate_lpi(&mut self, ready: ReadyLpi) -> Lpi {
        self.activate(ready.priority, Group::One);
        ready.lpi
    }

    /// Acknowledges an interrupt if there is a wired candidate: by the fast path if it is the only
    /// one and no LPI is ready, and otherwise by a search.
    fn acknowledge_wired(&mut self, group: Group) -> Option<IntId> {
        let has_lpi = !self.lpis.as_ref().is_none_or(PendingLpis::is_empty);
        let sole = if has_lpi { None } else { self.acknowledge_sole(group) };
        sole.or_else(|| self.acknowledge_any(group))
    }

    /// Fast path: acknowledges the only wired candidate. Must only be called if no LPI is ready.
    /// After `None`, [`acknowledge_any`](Self::acknowledge_any) must check all interrupts.
    #[inline]
    fn acknowledge_sole(&mut self, group: Group) -> Option<IntId> {
        let index = self.own.private.candidates.sole()?;
        let (cpu, wired) = (self.cpu, self.gic.wired());
        let state = wired.state_to_signal(cpu, index);
        let is_signaled = state.ready_at(cpu)
            && state.group() == group
            && self.is_distributed(group)
            && state.priority().is_more_urgent_than(self.interface.limit(group));
        if !is_signaled {
            return None;
        }
        self.taken = Some((index, wired.acknowledge(cpu, index, state)?));
        self.activate(state.priority(), group);
        Some(index.intid())
    }

    /// Returns `true` if the distributor and the redistributor forward the group to the CPU
    /// interface. A sleeping redistributor doesn't forward any interrupts.
    #[inline]
    pub(crate) fn is_distributed(&self, group: Group) -> bool {
        self.own.private.is_awake() && self.gic.wired().forwards(group)
    }

    #[inline(never)]
    fn acknowledge_any(&mut self, group: Group) -> Option<IntId> {
        for _ in 0..ATTEMPTS {
            let forwarded = self.forwarded();
            let wired = self.most_urgent_wired(forwarded);
            let taken = match self.take_lpi(group, forwarded, wired) {
                Some(lpi) => Some(lpi),
                None => self.take_wired(group, wired)?,
            };
            if let Some(taken) = taken {
                self.activate(taken.priority, group);
                return Some(taken.intid);
            }
        }
        None
    }

    /// Makes the priority of an acknowledged interrupt active.
    #[inline(always)]
    fn activate(&mut self, priority: Priority, group: Group) {
        self.interface.activate(priority, group);
        self.interface.publish_active(&self.own.private.interface, group);
    }

    /// Acknowledges the highest-priority LPI in one step, if it has priority over the wired
    /// interrupts, of which `wired` is the highest, and passes the mask and binary point. If this
    /// LPI doesn't pass, no lower-priority LPI can pass.
    fn take_lpi(
        &mut self,
        group: Group,
        forwarded: [bool; 2],
        wired: Option<MostUrgent>,
    ) -> Option<MostUrgent> {
        if group != Group::One || !forwarded[group as usize] {
            return None;
        }
        let lpis = self.lpis.as_mut().filter(|lpis| !lpis.is_empty())?;
        let limit = self.interface.limit(group);
        let than = wired.map_or(Priority::IDLE, |candidate| candidate.priority).min(limit);
        lpis.take(than).map(Self::lpi_candidate)
    }

    /// Acknowledges the highest-priority interrupt, if it is a wired interrupt in `group` and is
    /// signaled. Must be called after [`take_lpi`](Self::take_lpi) has found no LPI. Returns `None`
    /// if nothing is to be acknowledged, and `Some(None)` if the interrupt is no longer pending.
    #[expect(clippy::option_option, reason = "the two ways to fail differ for the caller")]
    fn take_wired(
        &mut self,
        group: Group,
        wired: Option<MostUrgent>,
    ) -> Option<Option<MostUrgent>> {
        let first = match group {
            Group::Zero => self.signaled(),
            Group::One => wired.filter(|found| self.interface.signals(found.priority, found.group)),
        };
        let first = first.filter(|found| found.group == group)?;
        let Source::Wired(index, state) = first.source else { return None };
        Some(self.gic.wired().acknowledge(self.cpu, index, state).map(|_| first))
    }

    /// Returns the highest-priority pending interrupt in the enabled groups, if it is in `group`,
    /// regardless of the mask and the running priority: `ICC_HPPIR<n>_EL1`.
    pub(crate) fn highest(&mut self, group: Group) -> Option<IntId> {
        self.most_urgent()
            .filter(|candidate| candidate.group == group)
            .map(|candidate| candidate.intid)
    }

    /// Ends an interrupt in `group` for the guest (`ICC_EOIR<n>_EL1`). Ignores special INTIDs, and
    /// any group other than the running group.
    pub(crate) fn end(&mut self, group: Group, intid: IntId) {
        let ends = intid.class() != IntIdClass::Special && self.end_lpi(group);
        // LPIs don't have an active state.
        if ends && !self.interface.splits_eoi() && intid.class() != IntIdClass::Lpi {
            self.deactivate_ended(intid);
        }
    }

    /// Ends an LPI in `group`, like [`end`](Self::end). Returns `true` if the group is the running
    /// group.
    #[inline]
    pub(crate) fn end_lpi(&mut self, group: Group) -> bool {
        let ends = self.interface.drop_priority(group);
        if ends {
            self.interface.publish_active(&self.own.private.interface, group);
        }
        ends
    }

    /// Deactivates a wired interrupt that the guest has ended.
    #[inline(never)]
    fn deactivate_ended(&mut self, intid: IntId) {
        let (cpu, wired) = (self.cpu, self.gic.wired());
        let taken = self.taken.take().filter(|(index, _)| index.intid() == intid);
        if !taken.is_some_and(|(index, state)| wired.end_silently(cpu, index, state)) {
            wired.deactivate(cpu, intid);
        }
    }

    /// Deactivates an interrupt for the guest (`ICC_DIR_EL1`). No-op without `EOImode`.
    pub(crate) fn deactivate(&mut self, intid: IntId) {
        if self.interface.splits_eoi() {
            self.gic.wired().deactivate(self.cpu, intid);
        }
    }

    /// Sends an SGI for the guest. The Non-secure side can only send SGIs in its own group. SGIs in
    /// other groups would need permission from the Secure side (`GICR_NSACR`).
    pub(crate) fn send(&self, sgi: Sgi, group: Group) {
        let permitted =
            group == Group::One || self.interface.features().security == SecurityView::Single;
        if permitted {
            send_sgi(self.gic.wired(), self.cpu, sgi, group);
        }
    }

    /// Writes `ICC_IGRPEN<n>_EL1`.
    pub(crate) fn enable_group(&mut self, group: Group, enable: Igrpen) {
        self.change_interface(|interface| interface.set_takes(group, enable));
        self.publish(group);
    }

    /// Changes the CPU interface for a register write, and publishes its state.
    pub(crate) fn change_interface(&mut self, change: impl FnOnce(&mut CpuInterface)) {
        change(&mut self.interface);
        self.publish_interface();
    }

    /// Writes `ICC_PMR_EL1`, and publishes it for explanations.
    pub(crate) fn set_mask(&mut self, written: u8) {
        self.interface.set_mask(written);
        self.interface.publish_mask(&self.own.private.interface);
    }

    /// Publishes the state of the CPU interface for explanations.
    pub(crate) fn publish_interface(&self) {
        self.interface.publish_settings(&self.own.private.interface);
        self.publish_activity();
    }

    /// Publishes the active priorities and the acknowledgments for explanations.
    pub(crate) fn publish_activity(&self) {
        self.interface.publish_activity(&self.own.private.interface);
    }

    /// Tells the distributor whether this PE accepts the group. If the PE doesn't accept a group,
    /// the group's 1-of-N interrupts are routed to other PEs.
    pub(crate) fn publish(&self, group: Group) {
        let bit = participation::GROUP[group as usize];
        if self.interface.takes(group) {
            self.gic.wired().set_participation(self.cpu, bit, 0);
        } else {
            self.gic.wired().set_participation(self.cpu, 0, bit);
        }
    }

    /// Returns the interrupt currently signaled to the PE.
    fn signaled(&mut self) -> Option<MostUrgent> {
        self.most_urgent().filter(|found| self.interface.signals(found.priority, found.group))
    }

    /// Returns the highest-priority pending interrupt in the forwarded groups. Among interrupts of
    /// equal priority, the lowest INTID comes first, except that the order among LPIs is
    /// unspecified.
    fn most_urgent(&mut self) -> Option<MostUrgent> {
        if self.has_nothing() {
            return None;
        }
        let forwarded = self.forwarded();
        let wired = self.most_urgent_wired(forwarded);
        if !forwarded[Group::One as usize] {
            return wired;
        }
        let lpi = self.lpis.as_mut().and_then(|lpis| lpis.highest(Priority::IDLE));
        match (wired, lpi.map(Self::lpi_candidate)) {
            (Some(wired), Some(lpi)) if lpi.precedes(wired) => Some(lpi),
            (wired, lpi) => wired.or(lpi),
        }
    }

    /// Returns `true` if no interrupt of any group is pending for this vCPU. The check costs one
    /// load per kind of interrupt. A result of `false` may be spurious.
    #[inline]
    pub(crate) fn has_nothing(&self) -> bool {
        self.own.private.candidates.is_empty()
            && self.lpis.as_ref().is_none_or(PendingLpis::is_empty)
    }

    fn most_urgent_wired(&self, forwarded: [bool; 2]) -> Option<MostUrgent> {
        let mut best: Option<MostUrgent> = None;
        self.gic.wired().ready(self.cpu, |index, state| {
            let group = state.group();
            let found = MostUrgent {
                priority: state.priority(),
                intid: index.intid(),
                group,
                source: Source::Wired(index, state),
            };
            if forwarded[group as usize] && best.is_none_or(|best| found.precedes(best)) {
                best = Some(found);
            }
        });
        best
    }

    /// Returns, for each group, whether both the distributor and the CPU interface have enabled it.
    pub(crate) fn forwarded(&self) -> [bool; 2] {
        let [zero, one] = self.distributed();
        [zero && self.interface.takes(Group::Zero), one && self.interface.takes(Group::One)]
    }

    /// Returns, for each group, whether the distributor and the redistributor forward it to the CPU
    /// interface. A sleeping redistributor doesn't forward any interrupts.
    pub(crate) fn distributed(&self) -> [bool; 2] {
        let wired = self.gic.wired();
        let enabled = if self.own.private.is_awake() { wired.control() } else { 0 };
        [Group::Zero, Group::One].map(|group| enabled & (1 << group as usize) != 0)
    }

    fn lpi_candidate(ready: ReadyLpi) -> MostUrgent {
        MostUrgent {
            priority: ready.priority,
            intid: ready.lpi.intid(),
            group: Group::One,
            source: Source::Lpi,
        }
    }

    /// Returns this vCPU's number.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Returns the shared half of the virtual GIC.
    pub fn vgic(&self) -> &Arc<Vgic> {
        &self.gic
    }
}

impl MostUrgent {
    /// Returns `true` if this interrupt must be signaled before `other`.
    fn precedes(self, other: Self) -> bool {
        (self.priority, self.intid) < (other.priority, other.intid)
    }
}

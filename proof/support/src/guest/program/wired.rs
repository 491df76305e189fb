//! The rules of the GIC for SGIs, PPIs, SPIs and direct LPIs in their simplest form (IHI 0069 §4):
//! one struct per interrupt, and a linear search through all interrupts for every query. Of several
//! interrupts with equal priorities, any may come first. The rules don't share any code with the
//! model under test.

mod steps;

use super::{Observation, Program, Step, Target};
use gic_arch::Affinity;

/// Affinities of the vCPUs, in several clusters; one has an Aff0 above 15.
pub(super) const AFFINITIES: [Affinity; 3] =
    [Affinity::new(0, 0, 0, 0), Affinity::new(0, 0, 0, 17), Affinity::new(2, 0, 3, 1)];
/// INTIDs of the private interrupts that programs use.
pub(super) const PRIVATE: [u32; 8] = [0, 1, 15, 16, 27, 31, 1056, 1087];
/// INTIDs of the shared interrupts that programs use.
pub(super) const SHARED: [u32; 6] = [32, 33, 64, 95, 4096, 4127];
/// Interrupts that belong to the Secure side in the Non-secure view.
pub(super) const SECURE: [u32; 3] = [15, 31, 95];
/// INTIDs of linked virtual and physical interrupts: a PPI of each vCPU, and an SPI.
pub(super) const LINKED: [u32; 2] = [27, 64];
const FIRST_LPI: u32 = 8192;
/// INTID that is read if no interrupt is signaled.
const NONE: u32 = 1023;

/// The order in which a guest ends interrupts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ends {
    /// A vCPU may end any interrupt.
    Any,
    /// A vCPU does not end an interrupt that is active at another one, because list registers don't
    /// report which interrupt it was.
    Own,
    /// A vCPU ends its interrupts in the reverse order of their acknowledgment, because for an
    /// interrupt without a list register, the hardware only counts the EOI. The guest may activate
    /// other interrupts, and change the priorities of the interrupts that it is handling.
    Nested,
}

/// The wired interrupts of a machine, and the guest that uses them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wired {
    /// The guest has the Non-secure view of two security states.
    pub is_non_secure: bool,
    /// Number of priority bits.
    pub bits: u8,
    /// SPIs may be 1-of-N.
    pub one_of_n: bool,
    /// The order in which the guest ends interrupts.
    pub ends: Ends,
}

#[derive(Clone, Debug)]
struct Interrupt {
    intid: u32,
    /// CPU that owns the interrupt, if it is private.
    owner: Option<usize>,
    latch: bool,
    line: bool,
    /// The input is linked to a level-sensitive physical interrupt.
    linked: bool,
    /// The physical interrupt is active, so it cannot fire.
    held: bool,
    /// Level that messages set and clear; see `GICD_SETSPI_NSR`.
    message: bool,
    edge: bool,
    enabled: bool,
    active: bool,
    /// CPU that acknowledged the interrupt, if it has not been deactivated since.
    taker: Option<usize>,
    group: usize,
    priority: u8,
    target: Route,
}

/// The CPUs that may take an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    Nowhere,
    Cpu(usize),
    /// Any participating CPU: the interrupt is 1-of-N.
    Any,
}

impl Interrupt {
    /// Returns `true` for an LPI, which has no active state.
    const fn is_lpi(&self) -> bool {
        self.intid >= FIRST_LPI
    }

    const fn deactivate(&mut self) {
        self.held &= !self.active;
        self.active = false;
        self.taker = None;
    }

    /// Ends the physical interrupt if the interrupt is neither pending nor active, and fires it if
    /// it is not active and its input is high. An edge-triggered interrupt becomes pending each
    /// time, because the hypervisor cannot tell whether the input has fallen in between.
    const fn follow_physical(&mut self) {
        self.held &= self.pending() || self.active;
        if self.linked && self.line && !self.held {
            (self.held, self.latch) = (true, self.latch || self.edge);
        }
    }

    const fn pending(&self) -> bool {
        self.latch || (!self.edge && (self.line || self.message))
    }
}

#[derive(Clone, Debug)]
struct Cpu {
    awake: bool,
    mask: u8,
    bpr: [u8; 2],
    cbpr: bool,
    eoimode: bool,
    enabled: [bool; 2],
    /// The CPU takes no 1-of-N interrupts of the group (`GICR_CTLR.DPG<n>`).
    declines: [bool; 2],
    /// Priority of the interrupt that was read last as the highest-priority pending one.
    shown: Option<u8>,
    /// Group priorities and groups of the interrupts being handled, with the most recently
    /// acknowledged interrupt last.
    running: Vec<(u8, usize)>,
    /// Interrupts that the CPU has acknowledged but not ended.
    handled: Vec<u32>,
}

impl Program {
    /// Judges a program with wired interrupts like [`judge`](Self::judge), and reads all registers
    /// at the end.
    pub(super) fn judge_wired(&self, wired: Wired, target: &mut dyn Target) -> Result<(), String> {
        let gic = &mut WiredGic::new(wired, self.shape.lpis);
        let mut take = |gic: &mut WiredGic, step: Step| {
            let observed = target.take(step)?;
            gic.check(step, observed).map_err(|problem| format!("{step}: {problem}"))
        };
        for (number, step) in (1..).zip(&self.steps) {
            let says = |problem| format!("step {number}, {step}: {problem}");
            let parts = gic.resolve(*step).into_iter().chain(WiredGic::signals());
            let taken = parts.into_iter().try_for_each(|part| take(gic, part));
            taken.and_then(|()| gic.check_one_of_n()).map_err(says)?;
        }
        WiredGic::registers().try_for_each(|step| take(gic, step))
    }
}

/// The state of a GIC with wired interrupts.
#[derive(Clone, Debug)]
struct WiredGic {
    wired: Wired,
    interrupts: Vec<Interrupt>,
    cpus: Vec<Cpu>,
    enabled: [bool; 2],
    has_messages: bool,
    /// The guest has activated an interrupt that it has not acknowledged, or changed the priority
    /// of an active one. A saved state does not record either fact.
    is_disturbed: bool,
}

impl WiredGic {
    /// Creates a GIC after reset, with this number of direct LPIs, or with message-based SPIs.
    fn new(wired: Wired, lpis: usize) -> Self {
        let Wired { is_non_secure, bits, .. } = wired;
        let new = |intid: u32, owner: Option<usize>| {
            let guests = is_non_secure && !SECURE.contains(&intid);
            Interrupt {
                intid,
                owner,
                latch: false,
                line: false,
                linked: LINKED.contains(&intid),
                held: false,
                message: false,
                edge: !(16..FIRST_LPI).contains(&intid),
                enabled: false,
                active: false,
                taker: None,
                group: usize::from(guests || intid >= FIRST_LPI),
                priority: if guests { 0x80 } else { 0 },
                target: Route::Cpu(owner.unwrap_or(0)),
            }
        };
        let mut interrupts: Vec<_> = SHARED.iter().map(|intid| new(*intid, None)).collect();
        for cpu in 0..AFFINITIES.len() {
            let lpis = (FIRST_LPI..).take(lpis);
            interrupts.extend(PRIVATE.into_iter().chain(lpis).map(|intid| new(intid, Some(cpu))));
        }
        let preemption = bits.min(7);
        let cpu = Cpu {
            awake: is_non_secure,
            mask: if is_non_secure { 0x80 } else { 0 },
            bpr: [7 - preemption, 8 - preemption],
            cbpr: false,
            eoimode: false,
            enabled: [false; 2],
            declines: [false; 2],
            shown: None,
            running: Vec::new(),
            handled: Vec::new(),
        };
        let (cpus, has_messages) = (vec![cpu; AFFINITIES.len()], lpis == 0);
        let (enabled, is_disturbed) = ([false; 2], false);
        Self { wired, interrupts, cpus, enabled, has_messages, is_disturbed }
    }

    /// Returns the interrupt that `cpu` addresses with this INTID, if the guest can see it.
    fn find(&mut self, cpu: usize, intid: u32) -> Option<&mut Interrupt> {
        let is_single = !self.wired.is_non_secure;
        let found = self.interrupts.iter_mut().find(|it| it.is(cpu, intid));
        found.filter(|it| is_single || it.group == 1)
    }

    /// Returns the interrupt that `cpu` addresses with this INTID, visible or not.
    fn any(&self, cpu: usize, intid: u32) -> Option<&Interrupt> {
        self.interrupts.iter().find(|it| it.is(cpu, intid))
    }

    fn written_priority(&self, written: u8) -> u8 {
        let hardware = if self.wired.is_non_secure { 0x80 | written >> 1 } else { written };
        hardware & !(0xff_u8.checked_shr(self.wired.bits.into()).unwrap_or(0))
    }

    const fn shown_priority(&self, hardware: u8) -> u8 {
        match hardware {
            _ if !self.wired.is_non_secure => hardware,
            0..0x80 => 0,
            _ => hardware << 1,
        }
    }

    fn set_bpr(&mut self, cpu: usize, group: usize, written: u8) {
        let smallest = 7 - self.wired.bits.min(7) + u8::from(group == 1);
        let cpu = &mut self.cpus[cpu];
        if group == 0 || !cpu.cbpr {
            cpu.bpr[group] = (written & 7).max(smallest);
        }
    }

    fn shown_bpr(&self, cpu: usize, group: usize) -> u8 {
        let cpu = &self.cpus[cpu];
        if group == 1 && cpu.cbpr { (cpu.bpr[0] + 1).min(7) } else { cpu.bpr[group] }
    }

    fn group_priority(&self, cpu: usize, group: usize, priority: u8) -> u8 {
        let cpu = &self.cpus[cpu];
        let dropped = if group == 1 && !cpu.cbpr { cpu.bpr[1] } else { cpu.bpr[0] + 1 };
        if dropped >= 8 { 0 } else { priority >> dropped << dropped }
    }

    /// Returns the pending interrupts that may be at `cpu`, among the groups that both the CPU and
    /// the distributor have enabled.
    fn ready(&self, cpu: usize) -> impl Iterator<Item = &Interrupt> {
        let at = &self.cpus[cpu];
        self.interrupts.iter().filter(move |it| {
            let is_here = match it.target {
                Route::Nowhere => false,
                Route::Cpu(target) => target == cpu,
                Route::Any => !at.declines[it.group],
            };
            let is_ready = it.enabled && it.pending() && !it.active && is_here;
            is_ready && at.awake && self.enabled[it.group] && at.enabled[it.group]
        })
    }

    /// Returns an error if no CPU shows a pending 1-of-N interrupt that one of them may take, or a
    /// more urgent interrupt.
    fn check_one_of_n(&self) -> Result<(), String> {
        let all = self.interrupts.iter().filter(|it| it.target == Route::Any);
        for Interrupt { intid, priority, .. } in all {
            let mut cpus = (0..self.cpus.len())
                .filter(|cpu| self.ready(*cpu).any(|it| it.intid == *intid))
                .peekable();
            let shows = |cpu: usize| self.cpus[cpu].shown.is_some_and(|shown| shown <= *priority);
            if cpus.peek().is_some() && !cpus.any(shows) {
                return Err(format!("{intid} is at no CPU"));
            }
        }
        Ok(())
    }

    /// Returns `true` if a pending interrupt passes the mask, and preempts the running interrupt.
    fn is_signaled(&self, cpu: usize, it: &Interrupt) -> bool {
        let of_group = |priority| self.group_priority(cpu, it.group, priority);
        let running = self.cpus[cpu].running.last();
        let preempts =
            running.is_none_or(|(running, _)| of_group(it.priority) < of_group(*running));
        it.priority < self.cpus[cpu].mask && preempts
    }

    /// Returns what may be read, depending on which interrupt comes first.
    fn reads(&self, cpu: usize, none: u32, read: impl Fn(&Interrupt) -> u32) -> Vec<u32> {
        let certain = self.ready(cpu).filter(|it| it.target != Route::Any);
        let least = certain.map(|it| it.priority).min();
        let first = self.ready(cpu).filter(|it| least.is_none_or(|least| it.priority <= least));
        first.map(read).chain(least.is_none().then_some(none)).collect()
    }

    /// Acknowledges an interrupt that is signaled to `cpu`.
    fn acknowledge(&mut self, cpu: usize, intid: u32) {
        let Some(at) = self.interrupts.iter().position(|it| it.is(cpu, intid)) else { return };
        let Interrupt { priority, group, .. } = self.interrupts[at];
        let priority = self.group_priority(cpu, group, priority);
        self.cpus[cpu].running.push((priority, group));
        self.cpus[cpu].handled.push(intid);
        let it = &mut self.interrupts[at];
        (it.latch, it.active, it.taker) = (false, !it.is_lpi(), Some(cpu));
    }

    fn end(&mut self, cpu: usize, group: usize, intid: u32) {
        let at = &mut self.cpus[cpu];
        at.handled.pop_if(|last| *last == intid);
        let runs = at.running.last().is_some_and(|(_, running)| *running == group);
        if (1020..1024).contains(&intid) || !runs {
            return;
        }
        at.running.pop();
        if !at.eoimode {
            self.deactivate(cpu, intid);
        }
    }

    fn deactivate(&mut self, cpu: usize, intid: u32) {
        if let Some(it) = self.find(cpu, intid) {
            it.deactivate();
        }
    }
}

impl Interrupt {
    /// Returns `true` if `cpu` addresses the interrupt with this INTID.
    fn is(&self, cpu: usize, intid: u32) -> bool {
        self.intid == intid && self.owner.is_none_or(|owner| owner == cpu)
    }
}

//! The steps of programs, by the rules.

use super::{
    AFFINITIES, Cpu, Ends, Interrupt, LINKED, NONE, Observation, PRIVATE, Route, SHARED, WiredGic,
};
use crate::guest::program::{Field, Register, Step};
use gic_arch::icc::{Ctlr, Sgi};

const CPUS: usize = AFFINITIES.len();
/// Registers that are compared after each step.
const SIGNALS: [Register; 3] = [Register::Rpr, Register::Hppir(0), Register::Hppir(1)];

impl WiredGic {
    /// Returns the steps that a step consists of, or none if the guest must not take it now.
    pub(super) fn resolve(&self, step: Step) -> Vec<Step> {
        let last = |cpu: usize| self.cpus[cpu].handled.last().copied();
        match step {
            Step::End { cpu, group } => {
                let running = self.cpus[cpu].running.last();
                let is_next = running.is_some_and(|(_, running)| *running == group);
                let value = last(cpu).unwrap_or(NONE);
                let is_lawful = self.wired.ends < Ends::Nested || is_next;
                if !is_lawful || !self.ends_its_own(cpu, value) {
                    return Vec::new();
                }
                vec![Step::Write { cpu, register: Register::Eoir(group), value: value.into() }]
            }
            Step::Refire { cpu, target } => {
                let Some(intid) = last(cpu).filter(|it| SHARED.contains(it)) else { return vec![] };
                let lines = [false, true, false].map(|high| Step::Line { cpu, intid, high });
                [Step::Route { intid, target }].into_iter().chain(lines).collect()
            }
            Step::Configure { lpi, .. } => {
                let invalidate = |cpu| Step::Invalidate { cpu, lpi };
                [step].into_iter().chain((0..CPUS).map(invalidate)).collect()
            }
            _ if self.is_lawful(step) => vec![step],
            _ => Vec::new(),
        }
    }

    /// Returns `true` if the machine can tell which interrupt this EOI ends.
    fn ends_its_own(&self, cpu: usize, intid: u32) -> bool {
        let is_own = |it: &Interrupt| it.owner.is_some() || !it.active || it.taker == Some(cpu);
        self.wired.ends < Ends::Own || self.any(cpu, intid).is_none_or(is_own)
    }

    fn is_active(&self, cpu: usize, intid: u32) -> bool {
        self.any(cpu, intid).is_some_and(|it| it.active)
    }

    fn is_lawful(&self, step: Step) -> bool {
        let is_nested = self.wired.ends == Ends::Nested;
        match step {
            // Whether the hypervisor then reports a high level as an edge is up to it.
            Step::Link { cpu, intid, .. } => {
                self.any(cpu, intid).is_some_and(|it| !it.edge || !it.line)
            }
            // A linked 1-of-N interrupt may move at each exit, also while vCPUs are read in turn.
            Step::Route { intid, target } if LINKED.contains(&intid) => target <= CPUS,
            Step::Write { cpu, register: Register::Eoir(_), value } => {
                !is_nested && self.ends_its_own(cpu, u32::try_from(value).unwrap_or(NONE))
            }
            Step::Write { cpu, register: Register::Ctlr, .. } if is_nested => {
                self.cpus[cpu].running.is_empty() && self.interrupts.iter().all(|it| !it.active)
            }
            Step::Field { field: Field::Deactivate, .. } => !is_nested,
            Step::Field { field: Field::Priority, .. } => true,
            Step::Field { cpu, intid, .. } => !is_nested || !self.is_active(cpu, intid),
            Step::Restore => !is_nested || !self.is_disturbed,
            Step::Reset { cpu } => !is_nested || self.cpus[cpu].running.is_empty(),
            _ => true,
        }
    }

    /// Returns the steps that observe the signals to each vCPU.
    pub(super) fn signals() -> impl Iterator<Item = Step> {
        (0..CPUS).flat_map(|cpu| {
            let reads = SIGNALS.map(|register| Step::Read { cpu, register });
            [Step::Inputs { cpu }].into_iter().chain(reads)
        })
    }

    /// Returns the steps that read all registers.
    pub(super) fn registers() -> impl Iterator<Item = Step> {
        (0..CPUS).flat_map(|cpu| {
            let registers = [Register::Pmr, Register::Bpr(1)];
            let all = PRIVATE.into_iter().chain(SHARED.into_iter().filter(move |_| cpu == 0));
            let fields = all.flat_map(move |intid| {
                Field::ALL.map(|(_, field, _)| Step::ReadField { cpu, field, intid })
            });
            registers.map(|register| Step::Read { cpu, register }).into_iter().chain(fields)
        })
    }

    /// Takes a step.
    ///
    /// # Errors
    /// Explains why the observation is not allowed.
    pub(super) fn check(&mut self, step: Step, observed: Observation) -> Result<(), String> {
        let is_undefined = |it: Register| it.is_of_group_0() && self.wired.is_non_secure;
        let allowed = match step {
            Step::Read { register, .. } | Step::Write { register, .. }
                if is_undefined(register) =>
            {
                vec![Observation::Undefined]
            }
            Step::Read { cpu, register } => {
                self.read(cpu, register).into_iter().map(Observation::Read).collect()
            }
            Step::Inputs { cpu } => {
                let input = |it: &Interrupt| u32::from(self.is_signaled(cpu, it)) << it.group;
                self.reads(cpu, 0, input).into_iter().map(Observation::Read).collect()
            }
            Step::ReadField { cpu, field, intid } => {
                vec![Observation::Read(self.read_field(cpu, field, intid))]
            }
            Step::Line { cpu, intid, .. } => {
                vec![Observation::Sent(intid >= 16 && self.any(cpu, intid).is_some())]
            }
            _ => vec![Observation::Nothing],
        };
        if !allowed.contains(&observed) {
            return Err(format!("{observed:?} instead of {allowed:?}"));
        }
        match (step, observed) {
            (Step::Read { cpu, register: Register::Iar(_) }, Observation::Read(intid)) => {
                self.acknowledge(cpu, intid);
            }
            (Step::Inputs { cpu }, _) => self.cpus[cpu].shown = None,
            (Step::Read { cpu, register: Register::Hppir(_) }, Observation::Read(intid)) => {
                let priority = self.any(cpu, intid).map(|it| it.priority);
                self.cpus[cpu].shown = priority.or(self.cpus[cpu].shown);
            }
            (_, Observation::Undefined) => {}
            _ => self.apply(step),
        }
        self.interrupts.iter_mut().for_each(Interrupt::follow_physical);
        Ok(())
    }

    /// Returns the values that a system register may have.
    fn read(&self, cpu: usize, register: Register) -> Vec<u32> {
        let of = |group, it: &Interrupt| if it.group == group { it.intid } else { NONE };
        match register {
            Register::Hppir(group) => self.reads(cpu, NONE, |it| of(group, it)),
            Register::Iar(group) => {
                self.reads(
                    cpu,
                    NONE,
                    |it| {
                        if self.is_signaled(cpu, it) { of(group, it) } else { NONE }
                    },
                )
            }
            Register::Rpr => {
                let running = self.cpus[cpu].running.last();
                vec![running.map_or(0xff, |(it, _)| self.shown_priority(*it).into())]
            }
            Register::Pmr => vec![self.shown_priority(self.cpus[cpu].mask).into()],
            Register::Bpr(group) => vec![self.shown_bpr(cpu, group).into()],
            _ => Vec::new(),
        }
    }

    fn read_field(&mut self, cpu: usize, field: Field, intid: u32) -> u32 {
        let is_single = !self.wired.is_non_secure;
        let Some(it) = self.find(cpu, intid).cloned() else { return 0 };
        match field {
            Field::Enable | Field::Disable => it.enabled.into(),
            Field::Pend | Field::Unpend => it.pending().into(),
            Field::Activate | Field::Deactivate => it.active.into(),
            Field::Group => (is_single && it.group == 1).into(),
            Field::Priority => self.shown_priority(it.priority).into(),
            Field::Trigger => 2 * u32::from(it.edge),
        }
    }

    fn apply(&mut self, step: Step) {
        let is_single = !self.wired.is_non_secure;
        match step {
            Step::Line { cpu, intid, high } => self.drive(cpu, intid, high),
            Step::Link { cpu, intid, on } => {
                for it in self.interrupts.iter_mut().filter(|it| it.is(cpu, intid)) {
                    (it.linked, it.held) = (on, false);
                }
            }
            Step::Restore => self.interrupts.iter_mut().for_each(|it| it.held = false),
            Step::Message { intid, set } if self.has_messages => self.message(intid, set),
            Step::SetLpi { cpu, lpi } => self.latch_lpi(cpu, lpi, true),
            Step::ClearLpi { cpu, lpi } => self.latch_lpi(cpu, lpi, false),
            Step::Configure { lpi, configuration } => self.configure(lpi, configuration),
            Step::Field { cpu, field, intid, value } => self.write_field(cpu, field, intid, value),
            Step::Route { intid, target } => {
                let route = match target {
                    0..CPUS => Route::Cpu(target),
                    CPUS => Route::Nowhere,
                    _ if self.wired.one_of_n => Route::Any,
                    _ => Route::Cpu(0),
                };
                if let Some(it) = self.find(0, intid) {
                    it.target = route;
                }
            }
            Step::Groups { zero, one } => self.enabled = [zero && is_single, one],
            Step::Decline { cpu, zero, one } => self.cpus[cpu].declines = [zero, one],
            Step::Reset { cpu } => {
                let Cpu { awake, declines, .. } = self.cpus[cpu];
                let reset = Self::new(self.wired, 0).cpus.remove(cpu);
                self.cpus[cpu] = Cpu { awake, declines, ..reset };
            }
            Step::Waker { cpu, asleep } if is_single => self.cpus[cpu].awake = !asleep,
            Step::Write { cpu, register, value } => self.write(cpu, register, value),
            _ => {}
        }
    }

    fn write(&mut self, cpu: usize, register: Register, value: u64) {
        let [low, ..] = value.to_le_bytes();
        let intid = u32::try_from(value).unwrap_or(NONE);
        match register {
            Register::Pmr => self.cpus[cpu].mask = self.written_priority(low),
            Register::Bpr(group) => self.set_bpr(cpu, group, low),
            Register::Ctlr => {
                self.cpus[cpu].cbpr = Ctlr::from(value).cbpr();
                self.cpus[cpu].eoimode = Ctlr::from(value).eoi_mode();
            }
            Register::Igrpen(group) => self.cpus[cpu].enabled[group] = value & 1 == 1,
            Register::Eoir(group) => self.end(cpu, group, intid),
            Register::Dir if self.cpus[cpu].eoimode => self.deactivate(cpu, intid),
            Register::Sgi(group) => self.send_sgi(cpu, group, Sgi::from(value)),
            _ => {}
        }
    }

    /// Sends an SGI to one target or to all other vCPUs.
    fn send_sgi(&mut self, from: usize, group: usize, sgi: Sgi) {
        let is_visible = group == 1 || !self.wired.is_non_secure;
        for (cpu, affinity) in AFFINITIES.into_iter().enumerate() {
            let to_one = Sgi::to(sgi.intid(), affinity) == sgi;
            let is_target = if sgi.all_but_self() { cpu != from } else { to_one };
            let found = self.find(cpu, sgi.intid().into());
            if let Some(it) = found.filter(|it| it.group == group && is_target && is_visible) {
                it.latch = true;
            }
        }
    }

    fn drive(&mut self, cpu: usize, intid: u32, high: bool) {
        if let Some(it) = self.interrupts.iter_mut().find(|it| it.is(cpu, intid) && intid >= 16) {
            it.latch |= it.edge && high && !it.line && !it.linked;
            it.line = high;
        }
    }

    fn message(&mut self, intid: u32, set: bool) {
        match self.find(0, intid).filter(|it| it.owner.is_none()) {
            Some(it) if set && it.edge => it.latch = true,
            Some(it) if set => it.message = true,
            Some(it) => (it.latch, it.message) = (false, false),
            None => {}
        }
    }

    fn latch_lpi(&mut self, cpu: usize, lpi: u32, set: bool) {
        if let Some(it) = self.find(cpu, lpi) {
            it.latch = set;
        }
    }

    fn configure(&mut self, lpi: u32, configuration: u8) {
        let priority = self.written_priority(configuration & !3);
        for it in self.interrupts.iter_mut().filter(|it| it.intid == lpi) {
            (it.enabled, it.priority) = (configuration & 1 != 0, priority);
        }
    }

    fn write_field(&mut self, cpu: usize, field: Field, intid: u32, value: u8) {
        let (is_single, priority) = (!self.wired.is_non_secure, self.written_priority(value));
        let is_active = self.is_active(cpu, intid);
        self.is_disturbed |= field == Field::Activate || (field == Field::Priority && is_active);
        let Some(it) = self.find(cpu, intid) else { return };
        match field {
            Field::Enable => it.enabled = true,
            Field::Disable => it.enabled = false,
            Field::Pend => it.latch = true,
            Field::Unpend => it.latch = false,
            Field::Activate => it.active = true,
            Field::Deactivate => it.deactivate(),
            Field::Group if is_single => it.group = usize::from(value & 1),
            Field::Priority => it.priority = priority,
            Field::Trigger if intid >= 16 => it.edge = value & 1 == 1,
            Field::Group | Field::Trigger => {}
        }
    }
}

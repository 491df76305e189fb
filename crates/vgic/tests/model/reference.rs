//! The rules of the GIC in their simplest form: one struct per interrupt, and a linear search
//! through all interrupts for every query. The reference doesn't share any code with the model
//! under test.

/// Security view of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    Single,
    NonSecure,
}

#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    pub(crate) intid: u32,
    /// CPU that owns the interrupt, if it is private.
    pub(crate) owner: Option<usize>,
    pub(crate) latch: bool,
    pub(crate) line: bool,
    /// Level that messages set and clear; see `GICD_SETSPI_NSR`.
    pub(crate) message: bool,
    pub(crate) edge: bool,
    pub(crate) enabled: bool,
    pub(crate) active: bool,
    /// CPU that acknowledged the interrupt, if it has not been deactivated since.
    pub(crate) taker: Option<usize>,
    pub(crate) group: usize,
    pub(crate) priority: u8,
    /// Target CPU.
    pub(crate) target: Option<usize>,
}

impl Interrupt {
    /// Returns `true` for an LPI, which has no active state.
    fn is_lpi(&self) -> bool {
        self.intid >= 8192
    }

    pub(crate) const fn deactivate(&mut self) {
        self.active = false;
        self.taker = None;
    }

    pub(crate) fn pending(&self) -> bool {
        if self.edge { self.latch } else { self.latch || self.line || self.message }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    pub(crate) awake: bool,
    pub(crate) mask: u8,
    pub(crate) bpr: [u8; 2],
    pub(crate) cbpr: bool,
    pub(crate) eoimode: bool,
    pub(crate) enabled: [bool; 2],
    /// Group priorities and groups of the interrupts being handled, with the most recently
    /// acknowledged interrupt last.
    pub(crate) running: Vec<(u8, usize)>,
    /// Interrupt that precedes others of equal priority, which the architecture doesn't order.
    /// Without one, the lowest INTID does.
    pub(crate) first: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Gic {
    pub(crate) view: View,
    pub(crate) bits: u8,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) enabled: [bool; 2],
}

impl Gic {
    pub(crate) fn new(
        view: View,
        bits: u8,
        cpus: usize,
        private: &[u32],
        shared: &[u32],
        secure: &[u32],
    ) -> Self {
        let preemption = bits.min(7);
        let new = |intid: u32, owner: Option<usize>| {
            let guests = view == View::NonSecure && !secure.contains(&intid);
            Interrupt {
                intid,
                owner,
                latch: false,
                line: false,
                message: false,
                edge: intid < 16,
                enabled: false,
                active: false,
                taker: None,
                group: usize::from(guests),
                priority: if guests { 0x80 } else { 0 },
                target: Some(owner.unwrap_or(0)),
            }
        };
        let mut interrupts: Vec<_> = shared.iter().map(|intid| new(*intid, None)).collect();
        for cpu in 0..cpus {
            interrupts.extend(private.iter().map(|intid| new(*intid, Some(cpu))));
        }
        let cpu = Cpu {
            awake: view == View::NonSecure,
            mask: if view == View::NonSecure { 0x80 } else { 0 },
            bpr: [7 - preemption, 8 - preemption],
            cbpr: false,
            eoimode: false,
            enabled: [false; 2],
            running: Vec::new(),
            first: None,
        };
        Self { view, bits, interrupts, cpus: vec![cpu; cpus], enabled: [false; 2] }
    }

    /// Adds direct LPIs. Each redistributor has a separate pending state for each of these LPIs.
    pub(crate) fn add_lpis(&mut self, lpis: &[u32]) {
        for (cpu, intid) in
            (0..self.cpus.len()).flat_map(|cpu| lpis.iter().map(move |intid| (cpu, *intid)))
        {
            self.interrupts.push(Interrupt {
                intid,
                owner: Some(cpu),
                latch: false,
                line: false,
                message: false,
                edge: true,
                enabled: false,
                active: false,
                taker: None,
                group: 1,
                priority: self.written_priority(0),
                target: Some(cpu),
            });
        }
    }

    /// Writes an LPI's configuration, which all redistributors share.
    pub(crate) fn configure_lpi(&mut self, intid: u32, configuration: u8) {
        let priority = self.written_priority(configuration & 0xfc);
        for it in self.interrupts.iter_mut().filter(|it| it.intid == intid) {
            it.enabled = configuration & 1 == 1;
            it.priority = priority;
        }
    }

    /// Returns the interrupt that `cpu` addresses with this INTID, if the guest can see it.
    pub(crate) fn find(&mut self, cpu: usize, intid: u32) -> Option<&mut Interrupt> {
        let view = self.view;
        self.any(cpu, intid).filter(|it| view == View::Single || it.group == 1)
    }

    /// Returns the interrupt that `cpu` addresses with this INTID.
    pub(crate) fn any(&mut self, cpu: usize, intid: u32) -> Option<&mut Interrupt> {
        self.interrupts
            .iter_mut()
            .find(|it| it.intid == intid && it.owner.is_none_or(|owner| owner == cpu))
    }

    pub(crate) fn drive(&mut self, cpu: usize, intid: u32, high: bool) {
        if let Some(it) = self.any(cpu, intid) {
            if it.edge && high && !it.line {
                it.latch = true;
            }
            it.line = high;
        }
    }

    /// Handles `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR`.
    pub(crate) fn message(&mut self, intid: u32, set: bool) {
        match self.find(0, intid).filter(|it| it.owner.is_none()) {
            Some(it) if set && it.edge => it.latch = true,
            Some(it) if set => it.message = true,
            Some(it) => (it.latch, it.message) = (false, false),
            None => {}
        }
    }

    pub(crate) fn written_priority(&self, written: u8) -> u8 {
        let hardware = if self.view == View::Single { written } else { 0x80 | written >> 1 };
        hardware & !(0xff_u8.checked_shr(self.bits.into()).unwrap_or(0))
    }

    pub(crate) fn shown_priority(&self, hardware: u8) -> u8 {
        match self.view {
            View::Single => hardware,
            View::NonSecure if hardware < 0x80 => 0,
            View::NonSecure => hardware << 1,
        }
    }

    pub(crate) fn set_bpr(&mut self, cpu: usize, group: usize, written: u8) {
        let smallest = 7 - self.bits.min(7) + u8::from(group == 1);
        let cpu = &mut self.cpus[cpu];
        if group == 0 || !cpu.cbpr {
            cpu.bpr[group] = (written & 7).max(smallest);
        }
    }

    pub(crate) fn shown_bpr(&self, cpu: usize, group: usize) -> u8 {
        let cpu = &self.cpus[cpu];
        if group == 1 && cpu.cbpr { (cpu.bpr[0] + 1).min(7) } else { cpu.bpr[group] }
    }

    /// Returns the index of the highest-priority pending interrupt of `cpu`, among the groups that
    /// both the CPU and the distributor have enabled.
    fn most_urgent(&self, cpu: usize) -> Option<usize> {
        let at = &self.cpus[cpu];
        let forwarded = |it: &Interrupt| {
            at.awake && self.enabled[it.group] && at.enabled[it.group] && it.target == Some(cpu)
        };
        (0..self.interrupts.len())
            .filter(|index| {
                let it = &self.interrupts[*index];
                it.enabled && it.pending() && !it.active && forwarded(it)
            })
            .min_by_key(|index| {
                let Interrupt { priority, intid, .. } = self.interrupts[*index];
                (priority, at.first != Some(intid), intid)
            })
    }

    fn group_priority(&self, cpu: usize, group: usize, priority: u8) -> u8 {
        let cpu = &self.cpus[cpu];
        let dropped = if group == 1 && !cpu.cbpr { cpu.bpr[1] } else { cpu.bpr[0] + 1 };
        if dropped >= 8 { 0 } else { priority >> dropped << dropped }
    }

    /// Returns the index of the interrupt that is signaled to `cpu`.
    pub(crate) fn signalled(&self, cpu: usize) -> Option<usize> {
        let index = self.most_urgent(cpu)?;
        let it = &self.interrupts[index];
        let preempts = self.cpus[cpu].running.last().is_none_or(|(running, _)| {
            self.group_priority(cpu, it.group, it.priority)
                < self.group_priority(cpu, it.group, *running)
        });
        (it.priority < self.cpus[cpu].mask && preempts).then_some(index)
    }

    pub(crate) fn highest(&self, cpu: usize, group: usize) -> u32 {
        let found = self.most_urgent(cpu).map(|index| &self.interrupts[index]);
        found.filter(|it| it.group == group).map_or(1023, |it| it.intid)
    }

    pub(crate) fn acknowledge(&mut self, cpu: usize, group: usize) -> u32 {
        let found = self.signalled(cpu).filter(|index| self.interrupts[*index].group == group);
        let Some(index) = found else { return 1023 };
        let priority = self.group_priority(cpu, group, self.interrupts[index].priority);
        self.cpus[cpu].running.push((priority, group));
        self.interrupts[index].latch = false;
        self.interrupts[index].active = !self.interrupts[index].is_lpi();
        self.interrupts[index].taker = Some(cpu);
        self.interrupts[index].intid
    }

    pub(crate) fn running(&self, cpu: usize) -> u8 {
        self.cpus[cpu].running.last().map_or(0xff, |(priority, _)| *priority)
    }

    pub(crate) fn end(&mut self, cpu: usize, group: usize, intid: u32) {
        let runs = self.cpus[cpu].running.last().is_some_and(|(_, running)| *running == group);
        if (1020..1024).contains(&intid) || !runs {
            return;
        }
        self.cpus[cpu].running.pop();
        if !self.cpus[cpu].eoimode {
            self.deactivate(cpu, intid);
        }
    }

    pub(crate) fn deactivate(&mut self, cpu: usize, intid: u32) {
        if let Some(it) = self.find(cpu, intid) {
            it.deactivate();
        }
    }

    pub(crate) fn send_sgi(&mut self, targets: &[usize], intid: u32, group: usize) {
        for target in targets {
            if let Some(it) = self.find(*target, intid).filter(|it| it.group == group) {
                it.latch = true;
            }
        }
    }
}

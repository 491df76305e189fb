//! The hardware's virtual CPU interface as the manual describes it (IHI 0069 §6, §12.4). It models
//! the effects of a guest's accesses on list registers, `ICH_VMCR_EL2` and active priorities, and
//! the conditions for a maintenance interrupt. The module doesn't share any code with the model
//! under test.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use gic_arch::ich::ListRegisterState::{Active, Invalid, Pending, PendingActive};
use gic_arch::ich::{ListRegister, ListRegisterState, Misr, Vtr};
use vgic::VirtualInterface;

/// Returns `ICH_VTR_EL2` for a CPU with the given numbers of list registers and priority bits.
pub const fn vtr(list_registers: u8, priority_bits: u8) -> Vtr {
    let preemption_bits = if priority_bits > 7 { 7 } else { priority_bits };
    Vtr::new()
        .with_tds(true)
        .with_list_regs_minus_one(list_registers - 1)
        .with_pri_bits_minus_one(priority_bits - 1)
        .with_pre_bits_minus_one(preemption_bits - 1)
}

/// Returns the INTIDs and states of the interrupts in list registers.
pub fn listed(registers: &VirtualInterface) -> Vec<(u32, ListRegisterState)> {
    let used = registers.list.iter().filter(|register| register.state() != Invalid);
    used.map(|register| (register.virtual_intid(), register.state())).collect()
}

/// The virtual CPU interface of one CPU.
#[derive(Debug)]
pub struct Hardware {
    /// The registers.
    pub registers: VirtualInterface,
    /// `ICH_VTR_EL2`.
    pub vtr: Vtr,
    /// Physical interrupts that the hardware deactivated when the guest deactivated the linked
    /// virtual interrupts.
    pub deactivated: Vec<u32>,
}

impl Hardware {
    /// Loads the registers. Panics if their contents violate a rule of the manual.
    pub fn new(registers: VirtualInterface, vtr: Vtr) -> Self {
        for register in registers.list.iter().filter(|register| register.hw()) {
            assert_ne!(register.state(), PendingActive, "pending and active, although linked");
            let physical = register.physical_intid();
            let has_active_state = (16..1020).contains(&physical) || physical > 1023;
            assert!(has_active_state, "{physical} cannot be deactivated");
            assert!(register.virtual_intid() < 8192, "an LPI cannot be linked");
        }
        Self { registers, vtr, deactivated: Vec::new() }
    }

    fn list(&self) -> &[ListRegister] {
        &self.registers.list[..=usize::from(self.vtr.list_regs_minus_one())]
    }

    fn preemption_bits(&self) -> u8 {
        self.vtr.pre_bits_minus_one() + 1
    }

    fn priority_mask(&self) -> u8 {
        !(0xff_u8.checked_shr((self.vtr.pri_bits_minus_one() + 1).into()).unwrap_or(0))
    }

    fn takes(&self, group: usize) -> bool {
        [self.registers.vmcr.veng0(), self.registers.vmcr.veng1()][group]
    }

    fn group_priority(&self, priority: u8, group: usize) -> u8 {
        let vmcr = self.registers.vmcr;
        let dropped = if group == 1 && !vmcr.vcbpr() { vmcr.vbpr1() } else { vmcr.vbpr0() + 1 };
        if dropped >= 8 { 0 } else { priority >> dropped << dropped }
    }

    /// Returns a group's running group priority.
    fn running_of(&self, group: usize) -> Option<u8> {
        let words = self.registers.active_priorities[group];
        let bit = (0..128u32).find(|bit| words[(bit / 32) as usize] & (1 << (bit % 32)) != 0)?;
        u8::try_from(bit << (8 - self.preemption_bits())).ok()
    }

    /// Reads `ICC_RPR_EL1`.
    pub fn running(&self) -> u8 {
        let groups = [self.running_of(0), self.running_of(1)];
        groups.into_iter().flatten().min().unwrap_or(0xff)
    }

    /// Returns the highest-priority pending interrupt. The architecture doesn't order equal
    /// priorities. Like the reference, we choose the lowest INTID.
    fn most_urgent(&self) -> Option<usize> {
        let pending = |index: &usize| {
            let register = self.list()[*index];
            register.state() == Pending && self.takes(usize::from(register.group1()))
        };
        let rank = |index: &usize| {
            let register = self.list()[*index];
            (register.priority_value(), register.virtual_intid())
        };
        (0..self.list().len()).filter(pending).min_by_key(rank)
    }

    fn signaled_index(&self) -> Option<usize> {
        let index = self.most_urgent()?;
        let register = self.list()[index];
        let (priority, group) = (register.priority_value(), usize::from(register.group1()));
        let running = self.running();
        let preempts = running == 0xff
            || self.group_priority(priority, group) < self.group_priority(running, group);
        (priority < self.registers.vmcr.vpmr() && preempts).then_some(index)
    }

    /// Returns the group of the signaled interrupt.
    pub fn signaled(&self) -> Option<usize> {
        self.signaled_index().map(|index| usize::from(self.list()[index].group1()))
    }

    /// Reads `ICC_HPPIR0_EL1` or `ICC_HPPIR1_EL1`.
    pub fn highest(&self, group: usize) -> u32 {
        let register = self.most_urgent().map(|index| self.list()[index]);
        register
            .filter(|it| usize::from(it.group1()) == group)
            .map_or(1023, |it| it.virtual_intid())
    }

    /// Reads `ICC_IAR0_EL1` or `ICC_IAR1_EL1`.
    pub fn acknowledge(&mut self, group: usize) -> u32 {
        let found =
            self.signaled_index().filter(|at| usize::from(self.list()[*at].group1()) == group);
        let Some(index) = found else { return 1023 };
        let register = self.registers.list[index];
        let level =
            self.group_priority(register.priority_value(), group) >> (8 - self.preemption_bits());
        self.registers.active_priorities[group][usize::from(level / 32)] |= 1 << (level % 32);
        let is_lpi = register.virtual_intid() >= 8192;
        self.registers.list[index].set_state(if is_lpi { Invalid } else { Active });
        register.virtual_intid()
    }

    /// Writes `ICC_EOIR<group>_EL1`. Writes with UNPREDICTABLE effects are ignored.
    pub fn end(&mut self, group: usize, intid: u32) {
        let (zero, one) = (self.running_of(0), self.running_of(1));
        let runs = match (zero, one) {
            (None, None) => None,
            (Some(zero), Some(one)) if one < zero => Some(1),
            (None, Some(_)) => Some(1),
            (Some(_), _) => Some(0),
        };
        if (1020..1024).contains(&intid) || runs != Some(group) {
            return;
        }
        let word =
            self.registers.active_priorities[group].iter_mut().find(|word| **word != 0).unwrap();
        *word &= *word - 1;
        if !self.registers.vmcr.veoim() {
            self.end_active(intid);
        }
    }

    /// Writes `ICC_DIR_EL1`.
    pub fn deactivate(&mut self, intid: u32) {
        if self.registers.vmcr.veoim() {
            self.end_active(intid);
        }
    }

    fn end_active(&mut self, intid: u32) {
        let active = |it: &&mut ListRegister| {
            it.virtual_intid() == intid && matches!(it.state(), Active | PendingActive)
        };
        match self.registers.list.iter_mut().find(active) {
            Some(register) if register.state() == PendingActive => register.set_state(Pending),
            Some(register) => {
                register.set_state(Invalid);
                self.deactivated
                    .extend(register.hw().then_some(u32::from(register.physical_intid())));
            }
            None if intid < 8192 => {
                let count = self.registers.hcr.eoi_count();
                self.registers.hcr.set_eoi_count((count + 1) & 31);
            }
            None => {}
        }
    }

    /// Writes `ICC_PMR_EL1`.
    pub fn set_mask(&mut self, value: u8) {
        self.registers.vmcr.set_vpmr(value & self.priority_mask());
    }

    /// Writes `ICC_BPR0_EL1` or `ICC_BPR1_EL1`.
    pub fn set_binary_point(&mut self, group: usize, value: u8) {
        let smallest = 7 - self.preemption_bits();
        let vmcr = &mut self.registers.vmcr;
        match group {
            0 => vmcr.set_vbpr0((value & 7).max(smallest)),
            _ if vmcr.vcbpr() => {}
            _ => vmcr.set_vbpr1((value & 7).max(smallest + 1)),
        }
    }

    /// Returns `ICH_MISR_EL2`.
    pub fn misr(&self) -> Misr {
        let (hcr, vmcr) = (self.registers.hcr, self.registers.vmcr);
        let valid = self.list().iter().filter(|it| it.state() != Invalid).count();
        let pending = self.list().iter().filter(|it| it.state() == Pending).count();
        Misr::new()
            .with_eoi(self.eisr() != 0)
            .with_u(hcr.uie() && valid <= 1)
            .with_lrenp(hcr.lrenpie() && hcr.eoi_count() != 0)
            .with_np(hcr.npie() && pending == 0)
            .with_vgrp0_e(hcr.vgrp0_eie() && vmcr.veng0())
            .with_vgrp0_d(hcr.vgrp0_die() && !vmcr.veng0())
            .with_vgrp1_e(hcr.vgrp1_eie() && vmcr.veng1())
            .with_vgrp1_d(hcr.vgrp1_die() && !vmcr.veng1())
    }

    /// Returns `ICH_EISR_EL2`, a bitmap of the list registers whose interrupt has ended and that
    /// request a maintenance interrupt.
    pub fn eisr(&self) -> u64 {
        let ended = |it: &ListRegister| it.state() == Invalid && !it.hw() && it.eoi();
        self.list()
            .iter()
            .zip(0..)
            .filter(|(it, _)| ended(it))
            .fold(0, |bits, (_, at)| bits | 1 << at)
    }

    /// Returns `ICH_ELRSR_EL2`.
    pub fn empty(&self) -> u32 {
        let is_empty = |register: &ListRegister| {
            register.state() == Invalid && (register.hw() || !register.eoi())
        };
        (0..).zip(self.list()).map(|(at, it)| u32::from(is_empty(it)) << at).sum()
    }

    /// Returns `true` if the maintenance interrupt is asserted.
    pub fn asks_for_maintenance(&self) -> bool {
        self.registers.hcr.en() && self.misr().into_bits() != 0
    }
}

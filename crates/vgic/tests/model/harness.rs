//! Runs the model and the reference in parallel.

mod compare;
mod writes;

use super::half::{ExitPolicy, Half};
use super::ops::{AFFINITIES, Field, LPIS, Op, PRIVATE, SECURE, SHARED, interrupt};
use super::physical::{LINKED, Physical};
use super::reference::{Gic, View};
use doorbell_test_support::guest::Kicks;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::icc::{Ctlr, SysRegEncoding};
use gic_arch::{IntId, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, GuestMemory, MemoryFault, SecurityView, Vcpu, Vgic, VgicConfig};

/// The LPI configuration table, at [`Table::BASE`]. Pending tables are declared to be zero, and are
/// never written.
struct Table(Mutex<[u8; 8192]>);

impl Table {
    const BASE: u64 = 0x4000_0000;
}

impl GuestMemory for Table {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let table = self.0.lock().unwrap();
        let start = address.checked_sub(Self::BASE).and_then(|start| usize::try_from(start).ok());
        let found = start.and_then(|start| table.get(start..)?.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(MemoryFault { address })?);
        Ok(())
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

/// Kind of message that devices send, in addition to driving lines. Each machine supports only one
/// kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doorbells {
    /// Message-based SPIs.
    Messages,
    /// Direct LPIs.
    Lpis,
}

/// Kinds of vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VcpuKind {
    /// Software CPU interfaces.
    Software,
    /// CPU interfaces with the given number of list registers.
    Lists(u8, ExitPolicy),
    /// vCPU 0 in software, and all other vCPUs with 16 list registers.
    Mixed,
}

impl VcpuKind {
    fn half(self, vcpu: Vcpu, kicked: Arc<AtomicBool>) -> Half {
        match (self, vcpu.cpu().get()) {
            (Self::Software, _) | (Self::Mixed, 0) => Half::Software(vcpu),
            (Self::Lists(count, exits), _) => Half::lists(vcpu, count, exits, kicked),
            (Self::Mixed, _) => Half::lists(vcpu, 16, ExitPolicy::Needed, kicked),
        }
    }

    /// Returns `true` if there are fewer list registers than interrupts. In that case, the tests
    /// compare only what the guest observes.
    fn is_short(self) -> bool {
        matches!(self, Self::Lists(count, _) if count < 16)
    }
}

/// Test bench with the model and the reference.
pub(crate) struct Bench {
    gic: Arc<Vgic>,
    vcpus: Vec<Half>,
    kicks: Arc<Kicks>,
    kind: VcpuKind,
    doorbells: Doorbells,
    table: Arc<Table>,
    physical: Arc<Physical>,
    reference: Gic,
    /// Interrupts that each CPU has acknowledged but not ended.
    handled: Vec<Vec<u32>>,
    is_disturbed: bool,
}

impl Bench {
    pub(crate) fn new(view: View, bits: u8, kind: VcpuKind, doorbells: Doorbells) -> Self {
        let secure: &[u32] = if view == View::NonSecure { &SECURE } else { &[] };
        let mut reference = Gic::new(view, bits, AFFINITIES.len(), &PRIVATE, &SHARED, secure);
        let mut config = VgicConfig::new(3)
            .with_spis(64)
            .with_extended_spis(32)
            .with_extended_ppis(32)
            .with_message_based_spis(doorbells == Doorbells::Messages)
            .with_direct_lpi(doorbells == Doorbells::Lpis)
            .with_lpi_id_bits((doorbells == Doorbells::Lpis).then_some(14))
            .with_priority_bits(bits)
            .with_security(match view {
                View::Single => SecurityView::Single,
                View::NonSecure => SecurityView::NonSecure,
            })
            .with_secure_interrupts(secure.iter().copied().map(IntId::new).collect());
        for (cpu, affinity) in config.cpus.iter_mut().zip(AFFINITIES) {
            cpu.affinity = affinity;
        }
        let kicks = Arc::new(Kicks::new(AFFINITIES.len()));
        let table = Arc::new(Table(Mutex::new([0; 8192])));
        let (gic, vcpus) = Vgic::new(config, table.clone(), kicks.clone()).unwrap();
        let handled = vec![Vec::new(); AFFINITIES.len()];
        if doorbells == Doorbells::Lpis {
            reference.add_lpis(&LPIS);
        }
        let physical = Arc::new(Physical::default());
        let mut bench = Self {
            gic,
            vcpus: Vec::new(),
            kicks,
            kind,
            doorbells,
            table,
            physical,
            reference,
            handled,
            is_disturbed: false,
        };
        bench.link();
        bench.split(vcpus);
        bench.enable_lpis();
        bench
    }

    /// Enables LPIs. No-op on a machine without LPIs.
    fn enable_lpis(&self) {
        let table = Propbaser::new().with_id_bits_minus_one(13).with_address(Table::BASE);
        let pending = Pendbaser::new().with_address(0x5000_0000).with_pending_table_zero(true);
        for cpu in 0..AFFINITIES.len() {
            self.write_gicr(cpu, gicr::PROPBASER.offset(), AccessWidth::Double, table.into_bits());
            self.write_gicr(
                cpu,
                gicr::PENDBASER.offset(),
                AccessWidth::Double,
                pending.into_bits(),
            );
            self.write_gicr(cpu, gicr::CTLR.offset(), AccessWidth::Word, 1);
        }
    }

    fn write_gicr(&self, cpu: usize, offset: u32, width: AccessWidth, value: u64) {
        let region = self.gic.config().redistributors[0];
        let address = region.base + region.stride * cpu as u64 + u64::from(offset);
        self.gic.write_until_done(address, width, value).unwrap();
    }

    /// Links virtual interrupts to physical interrupts.
    fn link(&self) {
        self.gic.serve_physical(self.physical.clone()).unwrap();
        for intid in LINKED {
            for cpu in 0..AFFINITIES.len() {
                self.gic.link(line_of(cpu, intid), IntId::new(intid)).unwrap();
            }
        }
    }

    /// Ends the physical interrupts that the hardware has deactivated, then takes the physical
    /// interrupts that are now pending.
    fn take_physical(&mut self) {
        for (cpu, vcpu) in self.vcpus.iter_mut().enumerate() {
            for intid in vcpu.take_deactivated() {
                self.physical.end(cpu, intid);
            }
        }
        for line in self.physical.take() {
            self.gic.set_line(line, Level::High);
        }
    }

    fn split(&mut self, vcpus: Vec<Vcpu>) {
        let half = |vcpu: Vcpu| {
            let kicked = self.kicks.flag(vcpu.cpu().index());
            self.kind.half(vcpu, kicked)
        };
        self.vcpus = vcpus.into_iter().map(half).collect();
    }

    /// Saves the machine, serializes its state, and replaces it with a new machine restored from
    /// that state. A restored machine must save the same state.
    fn migrate(&mut self) {
        let paused: Vec<_> = self.vcpus.iter_mut().map(Half::pause).collect();
        let saved = self.gic.save().unwrap();
        drop(paused);
        let sent = serde_json::to_string(&saved).unwrap();
        let received: SavedState = serde_json::from_str(&sent).unwrap();
        let (gic, mut vcpus) =
            Vgic::new(self.gic.config().clone(), self.table.clone(), self.kicks.clone()).unwrap();
        let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        gic.restore(&received).unwrap();
        assert_eq!(gic.save().unwrap(), saved);
        drop(paused);
        self.gic = gic;
        self.physical.end_all();
        self.link();
        for intid in LINKED {
            for cpu in 0..AFFINITIES.len() {
                self.gic.set_line(line_of(cpu, intid), Level::Low);
            }
        }
        self.split(vcpus);
    }

    /// Enables groups and interrupts, as a guest does at startup.
    pub(crate) fn enable_everything(&mut self) {
        self.apply(&Op::Control { groups: [true; 2] });
        for lpi in 0..LPIS.len() {
            self.apply(&Op::Configure { lpi, priority: 2, enabled: true });
        }
        for cpu in 0..AFFINITIES.len() {
            self.apply(&Op::Waker { cpu, asleep: false });
            self.apply(&Op::Mask { cpu, value: 0xff });
            for group in 0..2 {
                self.apply(&Op::GroupEnable { cpu, group, on: true });
            }
            for interrupt in 0..PRIVATE.len() + SHARED.len() {
                self.apply(&Op::Field {
                    cpu,
                    interrupt,
                    field: Field::Enable,
                    value: 0,
                    wide: false,
                });
                let value = u8::from(interrupt % 3 != 0);
                self.apply(&Op::Field { cpu, interrupt, field: Field::Group, value, wide: false });
                let value = u8::from(interrupt % 2 != 0);
                self.apply(&Op::Field {
                    cpu,
                    interrupt,
                    field: Field::Trigger,
                    value,
                    wide: false,
                });
            }
        }
    }

    /// Returns `false` if `op` ends an active interrupt that its CPU has not acknowledged, or that
    /// was deactivated since and made active by a register write: hardware with list registers does
    /// not report which interrupt the guest has ended if it is active on another CPU.
    fn ends_its_own(&self, op: &Op) -> bool {
        let (cpu, intid) = match *op {
            Op::End { cpu, interrupt: index, .. } => (cpu, interrupt(index)),
            Op::EndLast { cpu, .. } => (cpu, self.handled[cpu].last().copied().unwrap_or(1023)),
            _ => return true,
        };
        let mut reference = self.reference.clone();
        reference
            .any(cpu, intid)
            .is_none_or(|it| it.owner.is_some() || !it.active || it.taker == Some(cpu))
    }

    /// Returns `true` if `op` is allowed. With few list registers, the guest must end interrupts in
    /// the reverse order of their acknowledgment, because for an interrupt without a list register,
    /// the hardware only counts the EOI. The guest may activate other interrupts through registers,
    /// and change the priorities of interrupts that it is handling.
    fn is_lawful(&self, op: &Op) -> bool {
        match *op {
            Op::End { .. } | Op::Modes { .. } | Op::Field { field: Field::Deactivate, .. } => false,
            Op::Field { field: Field::Priority, .. } => true,
            Op::Field { cpu, interrupt: index, .. } => !self.is_active(cpu, interrupt(index)),
            Op::Migrate => !self.is_disturbed,
            Op::EndLast { cpu, group } => self.reference.cpus[cpu]
                .running
                .last()
                .is_some_and(|(_, running)| *running == group),
            _ => true,
        }
    }

    fn is_active(&self, cpu: usize, intid: u32) -> bool {
        self.reference.clone().any(cpu, intid).is_some_and(|it| it.active)
    }

    /// Returns `true` if `op` leaves the guest with an active interrupt that it has not
    /// acknowledged, or that had a different priority when the guest acknowledged it. A saved state
    /// does not record either fact.
    fn disturbs(&self, op: &Op) -> bool {
        match *op {
            Op::Field { field: Field::Activate, .. } => true,
            Op::Field { cpu, interrupt: index, field: Field::Priority, .. } => {
                self.is_active(cpu, interrupt(index))
            }
            _ => false,
        }
    }

    /// Sets `EOImode` on every CPU; must be called before any other step.
    pub(crate) fn split_eoi(&mut self) {
        for cpu in 0..AFFINITIES.len() {
            self.apply_any(&Op::Modes { cpu, cbpr: false, eoimode: true });
        }
    }

    fn apply(&mut self, op: &Op) {
        let lists = self.has_lists();
        let possible = (!lists || self.ends_its_own(op)) && !Self::makes_linked_edge(op);
        if possible && (!self.kind.is_short() || self.is_lawful(op)) {
            self.is_disturbed |= self.disturbs(op);
            self.apply_any(op);
        }
    }

    fn has_lists(&self) -> bool {
        self.kind != VcpuKind::Software
    }

    /// Returns `true` if `op` may make a linked interrupt edge-triggered. The physical inputs of
    /// linked interrupts are level-sensitive: with an edge-triggered virtual interrupt, every
    /// sample of a high level would look like a new edge.
    fn makes_linked_edge(op: &Op) -> bool {
        matches!(*op, Op::Field { interrupt: index, field: Field::Trigger, .. }
            if LINKED.contains(&interrupt(index)))
    }

    fn apply_any(&mut self, op: &Op) {
        match *op {
            Op::Line { cpu, interrupt: index, high } => self.line(cpu, interrupt(index), high),
            Op::Message { interrupt: index, set } => self.message(interrupt(index), set),
            Op::Lpi { cpu, lpi, set } => self.ring(cpu, LPIS[lpi], set),
            Op::Configure { lpi, priority, enabled } => {
                let others = u8::try_from(LPIS.len() * usize::from(priority) + lpi).unwrap();
                self.configure(LPIS[lpi], others << 4 | u8::from(enabled));
            }
            Op::Field { cpu, interrupt: index, field, value, wide } => {
                self.write_field(cpu, interrupt(index), field, value, wide);
                self.reference_field(cpu, interrupt(index), field, value);
            }
            Op::Route { interrupt, target, wide } => self.route(SHARED[interrupt], target, wide),
            Op::Control { groups } => self.control(groups),
            Op::Waker { cpu, asleep } => self.waker(cpu, asleep),
            Op::Mask { cpu, value } => {
                self.msr(cpu, icc::PMR.encoding(), value.into());
                self.reference.cpus[cpu].mask = self.reference.written_priority(value);
            }
            Op::BinaryPoint { cpu, group, value } => {
                let register = [icc::BPR0.encoding(), icc::BPR1.encoding()][group];
                if self.msr_of_group(cpu, group, register, value.into()) {
                    self.reference.set_bpr(cpu, group, value);
                }
            }
            Op::Modes { cpu, cbpr, eoimode } => {
                let value = Ctlr::new().with_cbpr(cbpr).with_eoi_mode(eoimode);
                self.msr(cpu, icc::CTLR.encoding(), value.into_bits());
                self.reference.cpus[cpu].cbpr = cbpr;
                self.reference.cpus[cpu].eoimode = eoimode;
            }
            Op::GroupEnable { cpu, group, on } => {
                let register = [icc::IGRPEN0.encoding(), icc::IGRPEN1.encoding()][group];
                if self.msr_of_group(cpu, group, register, on.into()) {
                    self.reference.cpus[cpu].enabled[group] = on;
                }
            }
            Op::Sgi { from, group, target, interrupt } => {
                self.sgi(from, group, target, PRIVATE[interrupt]);
            }
            Op::Acknowledge { cpu, group } => self.acknowledge(cpu, group),
            Op::EndLast { cpu, group } => {
                let intid = self.handled[cpu].pop().unwrap_or(1023);
                self.end(cpu, group, intid);
            }
            Op::End { cpu, group, interrupt: index } => self.end(cpu, group, interrupt(index)),
            Op::RefireWhileActive { cpu, target } => {
                if let Some(intid) = self.handled[cpu].last().copied()
                    && SHARED.contains(&intid)
                {
                    self.route(intid, target, false);
                    for high in [false, true, false] {
                        self.line(cpu, intid, high);
                    }
                }
            }
            Op::Migrate => self.migrate(),
            Op::Deactivate { cpu, interrupt: index } => {
                self.msr(cpu, icc::DIR.encoding(), interrupt(index).into());
                if self.reference.cpus[cpu].eoimode {
                    self.reference.deactivate(cpu, interrupt(index));
                }
            }
        }
    }

    fn acknowledge(&mut self, cpu: usize, group: usize) {
        let register = [icc::IAR0.encoding(), icc::IAR1.encoding()][group];
        let Ok(intid) = self.vcpus[cpu].read_sysreg(register) else {
            assert_eq!((group, self.reference.view), (0, View::NonSecure));
            return;
        };
        assert_eq!(
            intid,
            u64::from(self.reference.acknowledge(cpu, group)),
            "IAR{group} of CPU {cpu}"
        );
        if intid != 1023 {
            self.handled[cpu].push(u32::try_from(intid).unwrap());
        }
    }

    fn end(&mut self, cpu: usize, group: usize, intid: u32) {
        let register = [icc::EOIR0.encoding(), icc::EOIR1.encoding()][group];
        if self.msr_of_group(cpu, group, register, intid.into()) {
            self.reference.end(cpu, group, intid);
        }
    }

    fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.vcpus[cpu].write_sysreg(register, value).unwrap();
    }

    /// Writes a register that exists only if the guest can see its interrupt group. Returns `true`
    /// if the register exists.
    fn msr_of_group(
        &mut self,
        cpu: usize,
        group: usize,
        register: SysRegEncoding,
        value: u64,
    ) -> bool {
        let exists = group == 1 || self.reference.view == View::Single;
        assert_eq!(self.vcpus[cpu].write_sysreg(register, value).is_ok(), exists);
        exists
    }

    /// Handles kicks. An exit may make an interrupt pending at another vCPU, which is kicked in
    /// turn.
    fn attend(&mut self) {
        for _ in 0..2 {
            self.vcpus.iter_mut().for_each(Half::attend);
            self.take_physical();
        }
        self.vcpus.iter_mut().for_each(Half::attend);
    }

    /// Applies the steps, and compares the model with the reference after each step.
    pub(crate) fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op);
            self.compare_signals(op);
        }
        self.compare_registers();
    }
}

fn line_of(cpu: usize, intid: u32) -> Line {
    if SHARED.contains(&intid) {
        Line::Spi(intid)
    } else {
        Line::Ppi { cpu: Cpu::new(u32::try_from(cpu).unwrap()), intid }
    }
}

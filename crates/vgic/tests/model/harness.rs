//! Drives model and reference side by side.

use crate::half::{Exits, Half};
use crate::ops::{AFFINITIES, Field, LPIS, Op, PRIVATE, SECURE, SHARED, interrupt};
use crate::reference::{Gic, View};
use gic_arch::gicd::Irouter;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::icc::{Ctlr, Sgi, SysRegEncoding};
use gic_arch::{Affinity, IntId, IntIdField, gicd, gicr, icc};
use msi_types::{Cpu, Kick, Level, Line, SetLine};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, GuestMemory, MemoryFault, SecurityView, Vcpu, Vgic, VgicConfig};

/// The LPI configuration table, at [`Table::BASE`]. Pending tables are promised to be zero and
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

/// Sources of interrupts beside lines: a machine has one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doorbells {
    /// Message-based SPIs.
    Messages,
    /// Direct LPIs.
    Lpis,
}

/// The kicked vCPUs.
#[derive(Default)]
struct Kicks([Arc<AtomicBool>; AFFINITIES.len()]);

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.0[cpu.index()].store(true, SeqCst);
    }
}

/// Kinds of vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Software.
    Software,
    /// This many list registers.
    Lists(u8, Exits),
    /// Software, all list registers, few.
    Mixed,
}

impl Kind {
    fn half(self, vcpu: Vcpu, kicked: Arc<AtomicBool>) -> Half {
        match (self, vcpu.cpu().get()) {
            (Self::Software, _) | (Self::Mixed, 0) => Half::Software(vcpu),
            (Self::Lists(count, exits), _) => Half::lists(vcpu, count, exits, kicked),
            (Self::Mixed, _) => Half::lists(vcpu, 16, Exits::Needed, kicked),
        }
    }

    /// Are there fewer list registers than interrupts? Then only what guests do is told apart.
    fn is_short(self) -> bool {
        matches!(self, Self::Lists(count, _) if count < 16)
    }
}

/// Model and reference.
pub(crate) struct Bench {
    gic: Arc<Vgic>,
    vcpus: Vec<Half>,
    kicks: Arc<Kicks>,
    kind: Kind,
    doorbells: Doorbells,
    table: Arc<Table>,
    reference: Gic,
    /// Interrupts that each CPU acknowledged and did not end.
    handled: Vec<Vec<u32>>,
}

impl Bench {
    pub(crate) fn new(view: View, bits: u8, kind: Kind, doorbells: Doorbells) -> Self {
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
        let kicks = Arc::new(Kicks::default());
        let table = Arc::new(Table(Mutex::new([0; 8192])));
        let (gic, vcpus) = Vgic::new(config, table.clone(), kicks.clone()).unwrap();
        let handled = vec![Vec::new(); AFFINITIES.len()];
        if doorbells == Doorbells::Lpis {
            reference.add_lpis(&LPIS);
        }
        let mut bench =
            Self { gic, vcpus: Vec::new(), kicks, kind, doorbells, table, reference, handled };
        bench.split(vcpus);
        bench.enable_lpis();
        bench
    }

    /// Has no effect where there are none.
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
        self.gic.write(address, width, value).unwrap();
    }

    fn split(&mut self, vcpus: Vec<Vcpu>) {
        let half = |vcpu: Vcpu| {
            let kicked = self.kicks.0[vcpu.cpu().index()].clone();
            self.kind.half(vcpu, kicked)
        };
        self.vcpus = vcpus.into_iter().map(half).collect();
    }

    /// Saves, and goes on with a new machine that was restored from the text of what was saved. A
    /// restored machine saves as the same.
    fn migrate(&mut self) {
        let mut left: Vec<Vcpu> = self.vcpus.drain(..).map(Half::into_software).collect();
        let saved = self.gic.freeze(&mut left).unwrap().save().unwrap();
        let sent = serde_json::to_string(&saved).unwrap();
        let received: SavedState = serde_json::from_str(&sent).unwrap();
        let (gic, mut vcpus) =
            Vgic::new(self.gic.config().clone(), self.table.clone(), self.kicks.clone()).unwrap();
        let mut frozen = gic.freeze(&mut vcpus).unwrap();
        frozen.restore(&received).unwrap();
        assert_eq!(frozen.save().unwrap(), saved);
        frozen.thaw();
        self.gic = gic;
        self.split(vcpus);
    }

    /// Enables groups and interrupts, as a guest does first.
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
            }
        }
    }

    /// With list registers, the hardware does not say which interrupt a guest ended that is active
    /// elsewhere.
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

    /// With few list registers, what the guest ends must be what it acknowledged last: the hardware
    /// only counts what it ends beyond them.
    fn is_lawful(&self, op: &Op) -> bool {
        match *op {
            Op::End { .. } | Op::Modes { .. } => false,
            Op::Field { cpu, interrupt: index, field, .. } => {
                let mut reference = self.reference.clone();
                let active = reference.any(cpu, interrupt(index)).is_some_and(|it| it.active);
                !active && !matches!(field, Field::Activate | Field::Deactivate)
            }
            Op::EndLast { cpu, group } => self.reference.cpus[cpu]
                .running
                .last()
                .is_some_and(|(_, running)| *running == group),
            _ => true,
        }
    }

    /// A guest with `EOImode`, from the beginning.
    pub(crate) fn split_eoi(&mut self) {
        for cpu in 0..AFFINITIES.len() {
            self.apply_any(&Op::Modes { cpu, cbpr: false, eoimode: true });
        }
    }

    fn apply(&mut self, op: &Op) {
        let lists = self.kind != Kind::Software;
        if (!lists || self.ends_its_own(op)) && (!self.kind.is_short() || self.is_lawful(op)) {
            self.apply_any(op);
        }
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
            Op::Migrate => self.migrate(),
            Op::Deactivate { cpu, interrupt: index } => {
                self.msr(cpu, icc::DIR.encoding(), interrupt(index).into());
                if self.reference.cpus[cpu].eoimode {
                    self.reference.deactivate(cpu, interrupt(index));
                }
            }
        }
    }

    fn line(&mut self, cpu: usize, intid: u32, high: bool) {
        let level = if high { Level::High } else { Level::Low };
        let line = if SHARED.contains(&intid) {
            Line::Spi(intid)
        } else {
            Line::Ppi { cpu: Cpu::new(u32::try_from(cpu).unwrap()), intid }
        };
        let answer = self.gic.set_line(line, level);
        let wired = intid >= 16 && self.reference.any(cpu, intid).is_some();
        assert_eq!(answer != msi_types::Delivery::NoDoorbell, wired, "{line:?}");
        if wired {
            self.reference.drive(cpu, intid, high);
        }
    }

    fn ring(&mut self, cpu: usize, intid: u32, set: bool) {
        let register = if set { gicr::SETLPIR } else { gicr::CLRLPIR };
        let width = if intid & 1 == 0 { AccessWidth::Double } else { AccessWidth::Word };
        self.write_gicr(cpu, register.offset(), width, intid.into());
        if self.doorbells == Doorbells::Lpis {
            self.reference.any(cpu, intid).unwrap().latch = set;
        }
    }

    fn configure(&mut self, intid: u32, configuration: u8) {
        self.table.0.lock().unwrap()[intid as usize - 8192] = configuration;
        for cpu in 0..AFFINITIES.len() {
            self.write_gicr(cpu, gicr::INVLPIR.offset(), AccessWidth::Double, intid.into());
        }
        self.reference.configure_lpi(intid, configuration);
    }

    fn message(&mut self, intid: u32, set: bool) {
        let register = if set { gicd::SETSPI_NSR } else { gicd::CLRSPI_NSR };
        let address = self.gic.config().distributor + u64::from(register.offset());
        let width = if intid & 1 == 0 { AccessWidth::Half } else { AccessWidth::Word };
        self.gic.write(address, width, intid.into()).unwrap();
        if self.doorbells == Doorbells::Messages {
            self.reference.message(intid, set);
        }
    }

    fn write_field(&self, cpu: usize, intid: u32, field: Field, value: u8, wide: bool) {
        let Some((base, location)) = self.locate(cpu, intid, field) else { return };
        let register = base + u64::from(location.register().offset());
        match field {
            Field::Priority => {
                let address = base + u64::from(location.byte_offset());
                self.gic.write(address, AccessWidth::Byte, value.into()).unwrap();
            }
            Field::Group | Field::Trigger => {
                let old = self.gic.read(register, AccessWidth::Word).unwrap();
                let field =
                    if matches!(field, Field::Group) { value & 1 } else { (value & 1) << 1 };
                let new = location.insert(u32::try_from(old).unwrap(), field.into());
                self.gic.write(register, AccessWidth::Word, new.into()).unwrap();
            }
            _ if wide => {
                let shift = 8 * (register % 8);
                let value = u64::from(location.mask()) << shift;
                self.gic.write(register & !7, AccessWidth::Double, value).unwrap();
            }
            _ => self.gic.write(register, AccessWidth::Word, location.mask().into()).unwrap(),
        }
    }

    fn locate(
        &self,
        cpu: usize,
        intid: u32,
        field: Field,
    ) -> Option<(u64, gic_arch::IntIdLocation)> {
        let [distributor, extended, redistributor] = registers(field);
        let config = self.gic.config();
        let frame = config.redistributors[0].base + config.redistributors[0].stride * cpu as u64;
        let intid = IntId::new(intid);
        let shared = distributor.locate(intid).or(extended.locate(intid));
        let private = redistributor.locate(intid);
        shared.map(|at| (config.distributor, at)).or(private.map(|at| (frame, at)))
    }

    fn reference_field(&mut self, cpu: usize, intid: u32, field: Field, value: u8) {
        let view = self.reference.view;
        let priority = self.reference.written_priority(value);
        let Some(it) = self.reference.find(cpu, intid) else { return };
        match field {
            Field::Enable => it.enabled = true,
            Field::Disable => it.enabled = false,
            Field::Pend => it.latch = true,
            Field::Unpend => it.latch = false,
            Field::Activate => it.active = true,
            Field::Deactivate => it.active = false,
            Field::Group if view == View::Single => it.group = usize::from(value & 1),
            Field::Priority => it.priority = priority,
            Field::Trigger if intid >= 16 => it.edge = value & 1 == 1,
            Field::Group | Field::Trigger => {}
        }
    }

    fn route(&mut self, intid: u32, target: usize, wide: bool) {
        let affinity = AFFINITIES.get(target).copied().unwrap_or(Affinity::new(9, 9, 9, 9));
        let register = gicd::irouter(IntId::new(intid)).unwrap();
        let address = self.gic.config().distributor + u64::from(register.offset());
        let value = Irouter::to(affinity).into_bits();
        if wide {
            self.gic.write(address, AccessWidth::Double, value).unwrap();
        } else {
            self.gic.write(address, AccessWidth::Word, value & 0xffff_ffff).unwrap();
            self.gic.write(address + 4, AccessWidth::Word, value >> 32).unwrap();
        }
        if let Some(it) = self.reference.find(0, intid) {
            it.target = Some(target).filter(|target| *target < AFFINITIES.len());
        }
    }

    fn control(&mut self, groups: [bool; 2]) {
        let value = u64::from(groups[0]) | u64::from(groups[1]) << 1;
        self.gic.write(self.gic.config().distributor, AccessWidth::Word, value).unwrap();
        self.reference.enabled = match self.reference.view {
            View::Single => groups,
            View::NonSecure => [false, groups[1]],
        };
    }

    fn waker(&mut self, cpu: usize, asleep: bool) {
        self.write_gicr(cpu, gicr::WAKER.offset(), AccessWidth::Word, u64::from(asleep) << 1);
        if self.reference.view == View::Single {
            self.reference.cpus[cpu].awake = !asleep;
        }
    }

    fn sgi(&mut self, from: usize, group: usize, target: usize, intid: u32) {
        let number = u8::try_from(intid).unwrap();
        let (value, targets) = if let Some(affinity) = AFFINITIES.get(target) {
            (Sgi::to(number, *affinity), vec![target])
        } else {
            let others = (0..AFFINITIES.len()).filter(|cpu| *cpu != from).collect();
            (Sgi::new().with_intid(number).with_all_but_self(true), others)
        };
        let register = [icc::SGI0R.encoding(), icc::SGI1R.encoding()][group];
        self.msr(from, register, value.into_bits());
        if group == 1 || self.reference.view == View::Single {
            self.reference.send_sgi(&targets, intid, group);
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

    /// Writes a register that only exists where the guest has its group. Does it?
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

    /// Kicks are followed. What a vCPU brings back may be another's, which is kicked in turn.
    fn attend(&mut self) {
        for _ in 0..2 {
            self.vcpus.iter_mut().for_each(Half::attend);
        }
    }

    /// Applies steps, and compares after each.
    pub(crate) fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op);
            self.compare_signals(op);
        }
        self.compare_registers();
    }

    /// Inputs, running priorities and what is pending first, at each CPU.
    fn compare_signals(&mut self, after: &Op) {
        self.attend();
        for cpu in 0..AFFINITIES.len() {
            let inputs = self.vcpus[cpu].inputs();
            let signalled =
                self.reference.signalled(cpu).map(|at| self.reference.interrupts[at].group);
            assert_eq!(
                [inputs.fiq, inputs.irq],
                [signalled == Some(0), signalled == Some(1)],
                "{after:?}"
            );
            let running = match self.reference.running(cpu) {
                0xff => 0xff,
                running => self.reference.shown_priority(running),
            };
            assert_eq!(
                self.mrs(cpu, icc::RPR.encoding()),
                Some(running.into()),
                "RPR after {after:?}"
            );
            let highest = self.reference.highest(cpu, 1);
            assert_eq!(
                self.mrs(cpu, icc::HPPIR1.encoding()),
                Some(highest.into()),
                "HPPIR1 after {after:?}"
            );
            if self.reference.view == View::Single {
                let highest = self.reference.highest(cpu, 0);
                assert_eq!(
                    self.mrs(cpu, icc::HPPIR0.encoding()),
                    Some(highest.into()),
                    "HPPIR0 after {after:?}"
                );
            }
        }
    }

    fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> Option<u64> {
        self.vcpus[cpu].read_sysreg(register).ok()
    }

    /// Compares the registers' values.
    fn compare_registers(&mut self) {
        if self.kind == Kind::Software {
            assert!(self.kicks.0.iter().all(|kicked| !kicked.load(SeqCst)), "nobody left");
        }
        self.vcpus.iter_mut().for_each(Half::leave_guest);
        for cpu in 0..AFFINITIES.len() {
            let mask = self.reference.shown_priority(self.reference.cpus[cpu].mask);
            let mut read = |register| self.vcpus[cpu].read_outside(register);
            assert_eq!(read(icc::PMR.encoding()), Some(mask.into()));
            let binary_point = self.reference.shown_bpr(cpu, 1);
            assert_eq!(read(icc::BPR1.encoding()), Some(binary_point.into()));
            for intid in PRIVATE.iter().chain(&SHARED) {
                self.compare_interrupt(cpu, *intid);
            }
        }
    }

    fn compare_interrupt(&mut self, cpu: usize, intid: u32) {
        let view = self.reference.view;
        let it = self.reference.find(cpu, intid).cloned();
        let flag =
            |flag: fn(&crate::reference::Interrupt) -> bool| it.as_ref().is_some_and(flag).into();
        let expected = [
            (Field::Enable, flag(|it| it.enabled)),
            (Field::Disable, flag(|it| it.enabled)),
            (Field::Pend, flag(crate::reference::Interrupt::pending)),
            (Field::Unpend, flag(crate::reference::Interrupt::pending)),
            (Field::Activate, flag(|it| it.active)),
            (Field::Deactivate, flag(|it| it.active)),
            (Field::Group, if view == View::Single { flag(|it| it.group == 1) } else { 0 }),
            (
                Field::Priority,
                it.as_ref().map_or(0, |it| self.reference.shown_priority(it.priority).into()),
            ),
            (Field::Trigger, 2 * flag(|it| it.edge)),
        ];
        for (field, value) in expected {
            let (base, location) = self.locate(cpu, intid, field).unwrap();
            let register =
                self.gic.read(base + u64::from(location.register().offset()), AccessWidth::Word);
            let read = location.extract(u32::try_from(register.unwrap()).unwrap());
            assert_eq!(read, value, "{field:?} of {intid} at CPU {cpu}");
        }
    }
}

/// The arrays of the distributor, of its extended range, and of the redistributors.
fn registers(field: Field) -> [IntIdField; 3] {
    match field {
        Field::Enable => [gicd::ISENABLER, gicd::ISENABLER_E, gicr::ISENABLER],
        Field::Disable => [gicd::ICENABLER, gicd::ICENABLER_E, gicr::ICENABLER],
        Field::Pend => [gicd::ISPENDR, gicd::ISPENDR_E, gicr::ISPENDR],
        Field::Unpend => [gicd::ICPENDR, gicd::ICPENDR_E, gicr::ICPENDR],
        Field::Activate => [gicd::ISACTIVER, gicd::ISACTIVER_E, gicr::ISACTIVER],
        Field::Deactivate => [gicd::ICACTIVER, gicd::ICACTIVER_E, gicr::ICACTIVER],
        Field::Group => [gicd::IGROUPR, gicd::IGROUPR_E, gicr::IGROUPR],
        Field::Priority => [gicd::IPRIORITYR, gicd::IPRIORITYR_E, gicr::IPRIORITYR],
        Field::Trigger => [gicd::ICFGR, gicd::ICFGR_E, gicr::ICFGR],
    }
}

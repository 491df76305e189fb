//! A fake three-CPU GICv2 at register level.
//!
//! This is a separate machine that shares no code with the GICv3 in [`crate::fake`]. The machine's
//! CPU interface is a frame (`GICC_*`) that each CPU accesses at the same address. The machine has
//! no redistributors, no tables in memory and no affinity routing. At the distributor, registers of
//! INTIDs below 32 are banked by CPU, targets are bytes of `GICD_ITARGETSR`, and SGIs have a
//! sender. Bit 31 of `GICD_CTLR` is not `RWP`, so writes take effect immediately. From offset 0xd00
//! on, the distributor's registers differ from those of a GICv3.

use super::*;
use msi_types::{IrqState, LocalCpu};

pub(super) const DISTRIBUTOR: u64 = 0x800_0000;
pub(super) const INTERFACE: u64 = 0x801_0000;
pub(super) const FRAME: u64 = 0x802_0000;
/// Number of each CPU's interface. Interfaces and CPUs are deliberately numbered differently.
pub(super) const INTERFACE_OF: [usize; 3] = [2, 0, 1];

/// A fake GICv2 board, whose registers for INTIDs below 32 are banked per CPU.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<BoardState>>);

#[derive(Debug)]
pub(super) struct BoardState {
    pub(super) cpu: u32,
    pub(super) pidr2: u32,
    /// `true` if the read-only target fields of private interrupts are implemented.
    pub(super) has_targets: bool,
    pub(super) cpu_number: u8,
    pub(super) id_bits_minus_one: u8,
    pub(super) distributor: BTreeMap<u32, u32>,
    pub(super) banked: [BTreeMap<u32, u32>; 3],
    pub(super) interfaces: [Interface; 3],
    pub(super) sgis: Vec<Sgir>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Interface {
    pub(super) registers: BTreeMap<u32, u32>,
    pub(super) pending: Vec<Iar>,
    pub(super) running: Vec<Iar>,
    pub(super) deactivated: Vec<Iar>,
    /// `true` if an acknowledge register was read and no barrier has ordered later loads since.
    pub(super) unordered: bool,
    /// `true` for the interface of a GICv1, where `EOImode` is RAZ/WI.
    pub(super) no_eoi_mode: bool,
}

impl Board {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(BoardState {
            cpu: 0,
            pidr2: 0x2b,
            has_targets: true,
            cpu_number: 2,
            id_bits_minus_one: 0,
            distributor: BTreeMap::new(),
            banked: Default::default(),
            interfaces: Default::default(),
            sgis: Vec::new(),
        })))
    }

    pub(super) fn state<R>(&self, f: impl FnOnce(&mut BoardState) -> R) -> R {
        let _outside = Outside::new();
        f(&mut self.0.lock().unwrap())
    }

    pub(super) fn run_on(&self, cpu: u32) {
        self.state(|state| state.cpu = cpu);
    }

    pub(super) fn gic(&self) -> Result<Arc<GicV2<Self>>, GicError> {
        GicV2::new(self.clone(), GicV2Config::new(DISTRIBUTOR, INTERFACE, 3), self.cpu())
            .map(Arc::new)
    }

    pub(super) fn running(&self) -> Arc<GicV2<Self>> {
        let gic = self.gic().unwrap();
        for cpu in [0, 1] {
            self.run_on(cpu);
            gic.cpu_on(Cpu::new(cpu)).unwrap();
        }
        self.run_on(0);
        gic
    }

    /// Returns the interrupt's bit in an array with one bit per interrupt, as seen by the executing
    /// CPU.
    pub(super) fn bit(&self, array: gic_arch::IntIdField, intid: u32) -> bool {
        self.state(|state| state.read(array.offset() + intid / 32 * 4)) & 1 << (intid % 32) != 0
    }
}

pub(super) fn in_array(offset: u32, info: RegisterInfo) -> Option<u32> {
    info.index_of(offset)
}

impl BoardState {
    pub(super) fn words(&mut self, offset: u32) -> &mut BTreeMap<u32, u32> {
        if in_array(offset, gicd::SPENDSGIR.info("")).is_some() {
            return &mut self.banked[self.cpu as usize];
        }
        let own =
            [(gicd::IGROUPR, 32), (gicd::IPRIORITYR, 4), (gicd::ITARGETSR, 4), (gicd::ICFGR, 16)];
        let sets = [gicd::ISENABLER, gicd::ISPENDR, gicd::ISACTIVER].map(|array| (array, 32));
        let banked = own.into_iter().chain(sets).any(|(array, fields)| {
            in_array(offset, array.info("")).is_some_and(|register| register < 32 / fields)
        });
        if banked { &mut self.banked[self.cpu as usize] } else { &mut self.distributor }
    }

    pub(super) fn read(&mut self, offset: u32) -> u32 {
        let own_targets =
            in_array(offset, gicd::ITARGETSR.info("")).is_some_and(|register| register < 8);
        if own_targets {
            let bit = 1u8 << INTERFACE_OF[self.cpu as usize];
            return if self.has_targets { u32::from_ne_bytes([bit; 4]) } else { 0 };
        }
        match offset {
            _ if offset == gicd::GICV2_PIDR2.offset() && self.id_bits_minus_one != 0 => {
                panic!("a reserved register of a GICv3 is read: an external abort (38539)")
            }
            _ if offset == gicd::GICV2_PIDR2.offset() => self.pidr2,
            _ if offset == gicd::TYPER.offset() => {
                let typer = Typer::new().with_it_lines_number(3).with_cpu_number(self.cpu_number);
                typer.with_id_bits_minus_one(self.id_bits_minus_one).into()
            }
            _ if offset >= 0x1000 => panic!("an external abort at GICD + {offset:#x}"),
            _ => self.words(offset).get(&offset).copied().unwrap_or(0),
        }
    }

    pub(super) fn write(&mut self, offset: u32, value: u32) {
        for (set, clear) in [
            (gicd::ISENABLER, gicd::ICENABLER),
            (gicd::ISPENDR, gicd::ICPENDR),
            (gicd::ISACTIVER, gicd::ICACTIVER),
        ] {
            if let Some(register) = in_array(offset, set.info("")) {
                *self.words(offset).entry(set.offset() + register * 4).or_default() |= value;
                return;
            }
            if let Some(register) = in_array(offset, clear.info("")) {
                let set = set.offset() + register * 4;
                *self.words(set).entry(set).or_default() &= !value;
                return;
            }
        }
        assert!(
            !(0xd00..0xf00).contains(&offset),
            "GICD + {offset:#x} is a different register on a GICv2"
        );
        assert!(offset < 0x1000, "an external abort at GICD + {offset:#x}");
        if in_array(offset, gicd::SPENDSGIR.info("")).is_some() {
            assert!(
                value.to_le_bytes().iter().all(|senders| *senders != 0),
                "a word access writes all its bytes: {value:#x}"
            );
            *self.words(offset).entry(offset).or_default() |= value;
        } else if let Some(register) = in_array(offset, gicd::CPENDSGIR.info("")) {
            let set = gicd::SPENDSGIR.info("").offset + register * 4;
            *self.words(set).entry(set).or_default() &= !value;
        } else if offset == gicd::SGIR.offset() {
            self.sgis.push(Sgir::from(value));
        } else {
            self.words(offset).insert(offset, value);
        }
    }

    pub(super) fn write_byte(&mut self, offset: u32, value: u8) {
        if in_array(offset & !3, gicd::SPENDSGIR.info("")).is_some() {
            assert_ne!(value, 0, "QEMU makes an SGI without a sender pending");
            *self.words(offset).entry(offset & !3).or_default() |=
                u32::from(value) << (8 * (offset % 4));
            return;
        }
        let word = offset & !3;
        let mut bytes = self.read(word).to_le_bytes();
        bytes[(offset & 3) as usize] = value;
        self.words(word).insert(word, u32::from_le_bytes(bytes));
    }
}

impl Interface {
    pub(super) fn read(&mut self, offset: u32) -> u32 {
        match offset {
            _ if offset == gicc::IAR.offset() => match self.pending.pop() {
                Some(taken) => {
                    self.running.push(taken);
                    self.unordered = true;
                    taken.into()
                }
                None => 1023,
            },
            // Check that the driver assigned the same priority to every interrupt.
            _ if offset == gicc::RPR.offset() => {
                if self.running.is_empty() {
                    0xff
                } else {
                    0xa0
                }
            }
            _ if offset == gicc::HPPIR.offset() => {
                self.pending.last().map_or(1023, |next| (*next).into())
            }
            _ => self.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    pub(super) fn splits(&self) -> bool {
        let control = self.registers.get(&gicc::CTLR.offset()).copied().unwrap_or(0);
        gicc::Ctlr::from(control).eoi_mode_s()
    }

    pub(super) fn write(&mut self, offset: u32, value: u32) {
        if offset == gicc::EOIR.offset() {
            assert_eq!(
                self.running.pop().map(u32::from),
                Some(value),
                "EOIR takes the value of IAR, including the sender"
            );
            if !self.splits() {
                self.deactivated.push(Iar::from(value));
            }
        } else if offset == gicc::DIR.offset() {
            assert!(self.splits(), "DIR is written although EOIR deactivates");
            self.deactivated.push(Iar::from(value));
        } else if offset == gicc::CTLR.offset() && self.no_eoi_mode {
            self.registers.insert(offset, gicc::Ctlr::from(value).with_eoi_mode_s(false).into());
        } else {
            self.registers.insert(offset, value);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct BoardFrame(Board, u64, u64);

impl Mmio for BoardFrame {
    fn read32(&self, offset: u32) -> u32 {
        self.check_mapped(offset);
        self.0.state(|state| match self.1 {
            DISTRIBUTOR => state.read(offset),
            INTERFACE => state.interfaces[state.cpu as usize].read(offset),
            _ if offset == v2m::TYPER.offset() => {
                v2m::Typer::new().with_first(64).with_count(16).into()
            }
            _ => 0,
        })
    }
    fn write32(&self, offset: u32, value: u32) {
        self.check_mapped(offset);
        self.0.state(|state| match self.1 {
            DISTRIBUTOR => state.write(offset, value),
            _ => state.interfaces[state.cpu as usize].write(offset, value),
        });
    }
    fn read64(&self, offset: u32) -> u64 {
        panic!("64-bit read at {offset:#x}")
    }
    fn write64(&self, offset: u32, _: u64) {
        panic!("64-bit write at {offset:#x}")
    }
    fn write8(&self, offset: u32, value: u8) {
        assert_eq!(self.1, DISTRIBUTOR);
        self.0.state(|state| state.write_byte(offset, value));
    }
    fn read_barrier(&self) {
        self.0.state(|state| state.interfaces[state.cpu as usize].unordered = false);
    }
}

impl BoardFrame {
    pub(super) fn check_mapped(&self, offset: u32) {
        assert!(u64::from(offset) < self.2, "{offset:#x} is not mapped");
    }
}

impl LocalCpu for Board {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Board {
    type Mmio = BoardFrame;

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        let sizes: &[u64] = match region.base {
            INTERFACE => &[0x1000, 0x2000],
            // Frame sizes that the GICv2 and GICv3 drivers map.
            DISTRIBUTOR => &[0x1000, 0x1_0000],
            _ => &[0x1000],
        };
        assert!(sizes.contains(&region.bytes), "the frames of a GICv2 have 4 KiB");
        let PhysicalRegion { base, bytes } = region;
        [DISTRIBUTOR, INTERFACE, FRAME]
            .contains(&base)
            .then(|| BoardFrame(self.clone(), base, bytes))
    }
    fn wait(&self, _: u32) -> Wait {
        Wait::GiveUp
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, _: TableLayout) -> Option<Table> {
        panic!("a GICv2 has no tables")
    }
    fn release_table(&self, _: Table) {}
    fn store8(&self, _: &Table, _: u64, _: u8) {}
    fn store64(&self, _: &Table, _: u64, _: u64) {}
    fn load8(&self, _: &Table, _: u64) -> u8 {
        0
    }
    fn publish(&self, _: &Table, _: Range<u64>, _: Coherence) {}
    fn cpu(&self) -> Cpu {
        Cpu::new(self.state(|state| state.cpu))
    }
}

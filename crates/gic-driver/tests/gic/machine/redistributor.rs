//! A redistributor that sleeps after reset.

use super::bank::PRIVATE;
use super::{Bank, FakeVlpiFrame, LAG};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser, STRIDE_V3, Typer, Waker};
use gic_arch::{Affinity, Shareability, id};

#[derive(Debug)]
pub(crate) struct FakeRedistributor {
    /// Bytes from the first redistributor.
    pub(crate) offset: u64,
    pub(crate) typer: Typer,
    pub(crate) pidr2: u32,
    pub(crate) iidr: u32,
    pub(crate) control: Ctlr,
    pub(crate) bank: Bank,
    pub(crate) propbaser: Propbaser,
    pub(crate) pendbaser: Pendbaser,
    /// The frame VLPI_base, present with `GICR_TYPER.VLPIS`.
    pub(crate) vlpi: FakeVlpiFrame,
    /// Was `PTZ` written with the pending table in use?
    pub(crate) pending_table_zero: bool,
    /// Accesses to tables look into caches.
    pub(crate) coherent: bool,
    /// `EnableLPIs` cannot be cleared, whatever `CES` says.
    pub(crate) lpis_stuck: bool,
    pub(crate) sleep: bool,
    /// Secure firmware keeps `WAKER`.
    pub(crate) waker_hidden: bool,
    /// Any access to `WAKER` ends the machine.
    pub(crate) waker_broken: bool,
    asleep: bool,
    lag: u32,
    pending_writes: u32,
    /// `EnableLPIs` was set, and the write was acknowledged before it arrived.
    enable_under_way: bool,
    /// Writes never finish, and nothing falls asleep or wakes.
    pub(crate) stuck: bool,
    /// Its CPU's power domain is on: without power every access is an external abort.
    pub(crate) powered: bool,
}

impl FakeRedistributor {
    /// The redistributor of the PE with affinity 0.0.0.`number`, after reset, with 32 extended
    /// PPIs.
    pub(crate) fn new(number: u8, last: bool) -> Self {
        let typer = Typer::new()
            .with_plpis(true)
            .with_last(last)
            .with_processor_number(u16::from(number) + 100)
            .with_ppi_num(1)
            .with_affinity_value(Affinity::new(0, 0, 0, number).packed());
        Self {
            offset: u64::from(number) * STRIDE_V3,
            typer,
            pidr2: 0x3b,
            iidr: 0x043b,
            control: Ctlr::new().with_ces(true),
            bank: Bank::new(PRIVATE, 0..64),
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            vlpi: FakeVlpiFrame::default(),
            pending_table_zero: false,
            coherent: true,
            lpis_stuck: false,
            sleep: true,
            waker_hidden: false,
            waker_broken: false,
            asleep: true,
            lag: 0,
            pending_writes: 0,
            enable_under_way: false,
            stuck: false,
            powered: true,
        }
    }

    /// Loses everything but its identity, as without power.
    pub(crate) fn reset(&mut self) {
        let old = Self::new(0, false);
        let (offset, typer) = (self.offset, self.typer);
        let (coherent, ces) = (self.coherent, self.control.ces());
        *self = Self { offset, typer, coherent, control: Ctlr::new().with_ces(ces), ..old };
    }

    pub(crate) fn awake(mut self) -> Self {
        self.sleep = false;
        self.asleep = false;
        self
    }

    pub(crate) fn read(&mut self, offset: u32, bytes: u32) -> u64 {
        self.complete_enable();
        self.check_awake(offset);
        if let Some(value) = self.bank.read(offset, bytes) {
            return value.into();
        }
        match offset {
            _ if offset == gicr::CTLR.offset() && bytes == 4 => self.read_control().into(),
            _ if offset == gicr::IIDR.offset() && bytes == 4 => self.iidr.into(),
            _ if offset == gicr::TYPER.offset() && bytes == 8 => self.typer.into(),
            _ if offset == gicr::WAKER.offset() && bytes == 4 => self.read_waker().into(),
            _ if offset == gicr::PROPBASER.offset() && bytes == 8 => self.propbaser.into(),
            _ if offset == gicr::PENDBASER.offset() && bytes == 8 => self.pendbaser.into(),
            _ if offset == id::PIDR2.offset() && bytes == 4 => self.pidr2.into(),
            _ => panic!("{bytes}-byte read of GICR + {offset:#x}"),
        }
    }

    pub(crate) fn write(&mut self, offset: u32, bytes: u32, value: u64) {
        self.complete_enable();
        self.check_awake(offset);
        let low = u32::try_from(value & 0xffff_ffff).unwrap();
        match offset {
            _ if offset == gicr::CTLR.offset() && bytes == 4 => self.write_control(Ctlr::from(low)),
            _ if offset == gicr::WAKER.offset() && bytes == 4 => self.write_waker(Waker::from(low)),
            _ if offset == gicr::PROPBASER.offset() && bytes == 8 => {
                self.check_lpis_off();
                let value = Propbaser::from(value);
                let shareability =
                    if self.coherent { value.shareability() } else { Shareability::Non };
                self.propbaser = value.with_shareability(shareability);
            }
            _ if offset == gicr::PENDBASER.offset() && bytes == 8 => {
                self.check_lpis_off();
                let value = Pendbaser::from(value);
                self.pending_table_zero = value.pending_table_zero();
                let shareability =
                    if self.coherent { value.shareability() } else { Shareability::Non };
                self.pendbaser =
                    value.with_shareability(shareability).with_pending_table_zero(false);
            }
            _ => {
                let disabled = self
                    .bank
                    .write(offset, bytes, low)
                    .unwrap_or_else(|| panic!("{bytes}-byte write of GICR + {offset:#x}"));
                if disabled {
                    self.pending_writes = LAG;
                }
            }
        }
    }

    /// Completes an early-acknowledged write: accesses to one peripheral arrive in program order,
    /// so the write arrives before the next access.
    fn complete_enable(&mut self) {
        if std::mem::take(&mut self.enable_under_way) {
            self.control = self.control.with_enable_lpis(true);
        }
    }

    fn read_control(&mut self) -> u32 {
        if !self.stuck {
            self.pending_writes = self.pending_writes.saturating_sub(1);
        }
        let pending = self.stuck || self.pending_writes > 0;
        if !pending {
            self.bank.complete_writes();
        }
        self.control.with_rwp(pending).into()
    }

    fn write_control(&mut self, value: Ctlr) {
        match (self.control.enable_lpis(), value.enable_lpis()) {
            (false, true) => {
                assert_eq!(self.pending_writes, 0, "EnableLPIs is set while RWP is");
                assert_ne!(self.propbaser.address(), 0, "LPIs are enabled without tables");
                self.enable_under_way = true;
            }
            (true, false) if !self.lpis_stuck => {
                self.control = self.control.with_enable_lpis(false);
                self.pending_writes = LAG;
            }
            _ => {}
        }
    }

    fn read_waker(&mut self) -> u32 {
        assert!(!self.waker_broken, "WAKER is read, which firmware does not survive");
        if self.waker_hidden {
            return 0;
        }
        self.lag = self.lag.saturating_sub(1);
        if self.lag == 0 && !self.stuck {
            self.asleep = self.sleep;
        }
        Waker::new().with_processor_sleep(self.sleep).with_children_asleep(self.asleep).into()
    }

    fn write_waker(&mut self, value: Waker) {
        assert!(!self.waker_broken, "WAKER is written, which firmware does not survive");
        if !self.waker_hidden {
            self.sleep = value.processor_sleep();
            self.lag = LAG;
        }
    }

    /// Registers of a sleeping redistributor, but those that identify it and wake it, are out of
    /// bounds.
    fn check_awake(&self, offset: u32) {
        assert!(self.powered, "GICR + {offset:#x} is used without power");
        let always =
            [gicr::CTLR.offset(), gicr::IIDR.offset(), gicr::TYPER.offset(), gicr::WAKER.offset()];
        let bases = [gicr::PROPBASER.offset(), gicr::PENDBASER.offset(), id::PIDR2.offset()];
        let allowed = always.contains(&offset) || bases.contains(&offset);
        assert!(allowed || !self.asleep, "GICR + {offset:#x} is used while asleep");
    }

    fn check_lpis_off(&self) {
        assert!(!self.control.enable_lpis(), "a table register is written while LPIs are enabled");
        assert_eq!(self.pending_writes, 0, "a table register is written while RWP is set");
    }
}

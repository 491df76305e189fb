//! A fake distributor with one or two security states.

use super::{Bank, LAG, bank};
use gic_arch::gicd::{self, Ctlr, CtlrNs, Typer};
use gic_arch::{IntId, id};
use std::collections::BTreeMap;

/// The system's security configuration, and the view that software has of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Security {
    /// One security state.
    Single,
    /// Two security states, accessed by Secure software.
    Secure,
    /// Two security states, accessed by Non-secure software.
    NonSecure,
}

#[derive(Debug)]
pub(crate) struct FakeDistributor {
    pub(crate) security: Security,
    pub(crate) typer: Typer,
    pub(crate) pidr2: u32,
    pub(crate) iidr: u32,
    /// `true` if registers of SPIs that another chip owns read as stale values, except at that
    /// chip's alias.
    pub(crate) stale_at_home: bool,
    /// `CTLR` in the Secure view.
    pub(crate) control: Ctlr,
    pub(crate) spis: Bank,
    pub(crate) extended: Bank,
    pub(crate) routes: BTreeMap<u32, u64>,
    /// Routes in effect. A written route takes effect when the interrupt is no longer forwarded.
    in_effect: BTreeMap<u32, u64>,
    /// Implemented bits of a route.
    pub(crate) route_bits: u64,
    /// Number of reads of `CTLR` until `RWP` is 0.
    pending_writes: u32,
    /// `true` if writes never take effect.
    pub(crate) stuck: bool,
    /// `true` if firmware prevents affinity routing from being enabled.
    pub(crate) no_affinity_routing: bool,
    /// Number of writes to `CTLR`.
    pub(crate) control_writes: u32,
}

impl FakeDistributor {
    /// Returns a distributor after reset, with 64 SPIs and 32 extended SPIs. With
    /// `Security::NonSecure`, Secure firmware has assigned all interrupts except SPI 33 to
    /// Non-secure software.
    pub(crate) fn new(security: Security) -> Self {
        let typer = Typer::new()
            .with_it_lines_number(2)
            .with_espi(true)
            .with_espi_range(0)
            .with_security_extn(security != Security::Single)
            .with_lpis(true)
            .with_mbis(true)
            .with_id_bits_minus_one(15);
        let mut new = Self {
            security,
            typer,
            pidr2: 0x3b,
            iidr: 0x043b,
            stale_at_home: false,
            control: Ctlr::new().with_ds(security == Security::Single),
            spis: Bank::new(bank::SPI, 32..96),
            extended: Bank::new(bank::EXTENDED_SPI, 0..32),
            routes: BTreeMap::new(),
            in_effect: BTreeMap::new(),
            route_bits: u64::MAX,
            pending_writes: 0,
            stuck: false,
            no_affinity_routing: false,
            control_writes: 0,
        };
        if security == Security::NonSecure {
            new.give_to_non_secure();
        }
        new
    }

    /// Implements the maximum number of SPIs.
    pub(crate) fn implement_all_spis(&mut self) {
        self.typer = self.typer.with_it_lines_number(31);
        self.spis = Bank::new(bank::SPI, 32..1020);
    }

    /// Assigns the interrupts to Non-secure software, as EL3 firmware does before it starts a
    /// kernel.
    fn give_to_non_secure(&mut self) {
        self.control = self.control.with_are(true);
        for intid in (32..96).filter(|intid| *intid != 33) {
            self.spis.state(IntId::new(intid)).group = true;
        }
        for intid in 4096..4128 {
            self.extended.state(IntId::new(intid)).group = true;
        }
        self.spis.non_secure_view = true;
        self.extended.non_secure_view = true;
    }

    /// Reads a register at the alias of `chip`.
    pub(crate) fn read_alias(&mut self, chip: u32, offset: u32, bytes: u32) -> u64 {
        assert_eq!(self.chip_of(offset), Some(chip), "GICD + {offset:#x} is read at chip {chip}");
        self.read_truth(offset, bytes)
    }

    pub(crate) fn read(&mut self, offset: u32, bytes: u32) -> u64 {
        match self.chip_of(offset) {
            Some(1..) if self.stale_at_home => 0xdead_dead_dead_dead >> (64 - 8 * bytes),
            _ => self.read_truth(offset, bytes),
        }
    }

    /// Returns the chip that owns the SPI whose register is at `offset`. Each chip owns 320 SPIs;
    /// the fourth chip owns the extended SPIs.
    fn chip_of(&self, offset: u32) -> Option<u32> {
        let of_route = (0x6100..0x7fe0).contains(&offset).then(|| (offset - 0x6000) / 8);
        if self.extended.first_field(offset).is_some() || (0x8000..0xa000).contains(&offset) {
            return Some(3);
        }
        of_route.or_else(|| self.spis.first_field(offset)).map(|intid| (intid - 32) / 320)
    }

    fn read_truth(&mut self, offset: u32, bytes: u32) -> u64 {
        if offset == gicd::CTLR.offset() {
            assert_eq!(bytes, 4);
            return self.read_control().into();
        }
        if let Some(value) =
            self.spis.read(offset, bytes).or_else(|| self.extended.read(offset, bytes))
        {
            return value.into();
        }
        match offset {
            _ if offset == gicd::TYPER.offset() && bytes == 4 => u32::from(self.typer).into(),
            _ if offset == gicd::IIDR.offset() && bytes == 4 => self.iidr.into(),
            _ if offset == id::PIDR2.offset() && bytes == 4 => self.pidr2.into(),
            _ if is_route(offset) && bytes == 8 => self.routes.get(&offset).copied().unwrap_or(0),
            _ => panic!("{bytes}-byte read of GICD + {offset:#x}"),
        }
    }

    pub(crate) fn write(&mut self, offset: u32, bytes: u32, value: u64) {
        if is_route(offset) && bytes == 8 {
            self.routes.insert(offset, value & self.route_bits);
            if self.at_route(offset).is_none_or(|state| !state.forwarded) {
                self.in_effect.insert(offset, value & self.route_bits);
            }
            return;
        }
        let value = u32::try_from(value).unwrap();
        if offset == gicd::CTLR.offset() {
            assert_eq!(bytes, 4);
            return self.write_control(value);
        }
        let clear =
            if self.security == Security::Secure { gicd::CLRSPI_SR } else { gicd::CLRSPI_NSR };
        if offset == clear.offset() {
            assert!(self.typer.mbis() && bytes == 4, "message-based SPIs are not implemented");
            let intid = IntId::new(value);
            return self
                .spis
                .clear_message(intid)
                .or_else(|| self.extended.clear_message(intid))
                .unwrap();
        }
        let disabled = self
            .spis
            .write(offset, bytes, value)
            .or_else(|| self.extended.write(offset, bytes, value))
            .unwrap_or_else(|| panic!("{bytes}-byte write of GICD + {offset:#x}"));
        if disabled {
            self.pending_writes = LAG;
        }
    }

    /// Returns the packed affinity of the PE that would currently receive the interrupt, or `None`
    /// while the interrupt is not forwarded.
    pub(crate) fn delivers_to(&mut self, intid: IntId) -> Option<u64> {
        let route = gicd::irouter(intid).unwrap().offset();
        let forwarded = self.at_route(route).unwrap().forwarded;
        forwarded.then(|| self.in_effect.get(&route).copied().unwrap_or(0))
    }

    /// Returns the state of the interrupt whose route is at `offset`, if the interrupt is
    /// implemented.
    fn at_route(&mut self, offset: u32) -> Option<&mut super::InterruptState> {
        let (bank, base, first) = match offset {
            0..0x8000 => (&mut self.spis, 0x6000, 0),
            _ => (&mut self.extended, 0x8000, IntId::EXTENDED_SPI_BASE),
        };
        let index = (offset - base) / 8;
        ((index as usize) < bank.states().len()).then(|| bank.state(IntId::new(first + index)))
    }

    /// Applies written routes for interrupts that are not forwarded.
    fn complete_route_writes(&mut self) {
        for (offset, route) in self.routes.clone() {
            if self.at_route(offset).is_none_or(|state| !state.forwarded) {
                self.in_effect.insert(offset, route);
            }
        }
    }

    fn read_control(&mut self) -> u32 {
        if !self.stuck {
            self.pending_writes = self.pending_writes.saturating_sub(1);
        }
        let pending = self.stuck || self.pending_writes > 0;
        if !pending {
            self.spis.complete_writes();
            self.extended.complete_writes();
            self.complete_route_writes();
        }
        match self.security {
            Security::Single | Security::Secure => self.control.with_rwp(pending).into(),
            Security::NonSecure => CtlrNs::new()
                .with_enable_grp1a(self.control.enable_grp1())
                .with_are_ns(self.control.are_ns())
                .with_rwp(pending)
                .into(),
        }
    }

    fn write_control(&mut self, value: u32) {
        assert_eq!(self.pending_writes, 0, "CTLR is written while a write is pending");
        self.control_writes += 1;
        let old = self.control;
        let mut new = match self.security {
            Security::Single => {
                Ctlr::from(value).with_ds(true).with_enable_grp1_s(false).with_are_ns(false)
            }
            // From here on, the system has only one security state.
            Security::Secure if Ctlr::from(value).ds() => {
                self.security = Security::Single;
                Ctlr::from(value).with_enable_grp1_s(false).with_are_ns(false)
            }
            Security::Secure => Ctlr::from(value),
            Security::NonSecure => {
                let value = CtlrNs::from(value);
                old.with_enable_grp1(value.enable_grp1a()).with_are_ns(value.are_ns())
            }
        };
        if self.no_affinity_routing {
            new = new.with_are(false).with_are_ns(false);
        }
        let changes = (old.are(), old.are_ns()) != (new.are(), new.are_ns());
        let enabled = old.enable_grp0() || old.enable_grp1() || old.enable_grp1_s();
        assert!(!changes || !enabled, "affinity routing must not change while a group is enabled");
        assert!(
            old.are() || !new.enable_grp1() || old.are_ns(),
            "a group must not be enabled without affinity routing"
        );
        self.control = new;
        self.pending_writes = LAG;
    }
}

fn is_route(offset: u32) -> bool {
    (0x6100..0x7fe0).contains(&offset) || (0x8000..0xa000).contains(&offset)
}

//! A redistributor's fake VLPI_base frame. Residency changes take effect late.

use super::LAG;
use super::memory::Memory;
use super::virtual_execution::FakeVpe;
use gic_arch::gicr::Propbaser;
use gic_arch::gicr::vlpi::{self, Vpendbaser, Vpropbaser};

#[derive(Debug, Default)]
pub(crate) struct FakeVlpiFrame {
    pub(crate) vpropbaser: Vpropbaser,
    pub(crate) vpendbaser: Vpendbaser,
    /// Number of reads until the last change of `Valid` takes effect.
    pub(crate) lag: u32,
    /// `true` if changes to `Valid` never take effect.
    pub(crate) stuck: bool,
    /// `true` if a vPE is resident: the last change of `Valid` that took effect.
    pub(crate) is_resident: bool,
}

impl FakeVlpiFrame {
    pub(super) fn read(&mut self, offset: u32) -> u64 {
        match offset {
            _ if offset == vlpi::VPROPBASER.offset() => self.vpropbaser.into(),
            _ if offset == vlpi::VPENDBASER.offset() => {
                self.lag = self.lag.saturating_sub(1);
                self.vpendbaser.with_dirty(self.stuck || self.lag > 0).into()
            }
            _ => panic!("read of VLPI_base + {offset:#x}"),
        }
    }

    pub(super) fn write(&mut self, offset: u32, value: u64) {
        match offset {
            _ if offset == vlpi::VPROPBASER.offset() => {
                assert!(!self.vpendbaser.valid(), "VPROPBASER is written while a vPE is resident");
                assert_eq!(self.lag, 0, "VPROPBASER is written while Dirty is set");
                self.vpropbaser = Vpropbaser::from(value);
            }
            _ if offset == vlpi::VPENDBASER.offset() => {
                assert_eq!(self.lag, 0, "VPENDBASER is written while Dirty is set");
                self.vpendbaser = Vpendbaser::from(value);
                self.lag = LAG;
            }
            _ => panic!("write of VLPI_base + {offset:#x}"),
        }
    }

    /// Makes a vPE resident, or makes it leave. Returns `Some` if it has left.
    pub(super) fn change_residency(
        &mut self,
        vpe: &mut FakeVpe,
        home: u64,
        memory: &mut Memory,
    ) -> Option<()> {
        assert_eq!(vpe.home, home, "a vPE is resident elsewhere than VMAPP says");
        if self.is_resident {
            vpe.check();
            assert_eq!(self.vpendbaser.idai(), vpe.idai, "IDAI is not that of the last put");
            let config = Propbaser::new()
                .with_id_bits_minus_one(self.vpropbaser.id_bits_minus_one())
                .with_shareability(self.vpropbaser.shareability())
                .with_address(self.vpropbaser.address());
            vpe.lpis.reside(memory, config);
            return None;
        }
        let is_pending = vpe.lpis.leave(memory);
        self.vpendbaser.set_pending_last(is_pending);
        vpe.idai = !vpe.idai;
        self.vpendbaser.set_idai(vpe.idai);
        Some(())
    }
}

//! Writes of devices without identity: messages, and registers beside a doorbell. Nothing here
//! takes a message for an ITS, which needs a DeviceID.

use crate::monitor::access::AccessWidth;
use crate::vgic::{FrameAt, NotClaimed, Vgic};
use gic_arch::gits;
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};

/// The target of a device's write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceWrite {
    /// A doorbell.
    Message(Delivery),
    /// Another register of the model: it took the write as a CPU's.
    Register,
}

impl Vgic {
    /// A device's write of the low `width` of `value`, from a sender without identity. It may go to
    /// a doorbell (`GICD_SETSPI_NSR`, `GICD_CLRSPI_NSR` and their alias, `GICR_SETLPIR`,
    /// `GICR_CLRLPIR`, GICv2m's `MSI_SETSPI_NS`), or to another register beside it. **Nothing here
    /// isolates:** a device that reaches a redistributor's doorbell reaches `GICR_CTLR` and
    /// `GICR_PROPBASER` as well, and every device can ring every interrupt. A monitor gives devices
    /// the pages of an ITS, of a GICv2m frame or of [`VgicConfig::mbi_alias`] where it can.
    ///
    /// `GITS_TRANSLATER` takes no message without identity: the way to an ITS is
    /// [`its`](Self::its).
    ///
    /// # Errors
    /// [`NotClaimed`] outside of the model's regions.
    ///
    /// [`VgicConfig::mbi_alias`]: crate::VgicConfig::mbi_alias
    pub fn write_from_device(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
    ) -> Result<DeviceWrite, NotClaimed> {
        let (frame, offset) = self.frame_at(address).ok_or(NotClaimed(address))?;
        match self.ring(frame, offset, width, value & width.mask()) {
            Some(delivery) => Ok(DeviceWrite::Message(delivery)),
            None => self.write(address, width, value).map(|()| DeviceWrite::Register),
        }
    }
}

/// The doorbells that do not ask who rings. `Pending` if the interrupt is pending afterwards,
/// enabled or not. `Blocked` if it is not, also because the message took it back. `NoDoorbell`, and
/// nothing happens, at any other address.
impl SignalMsi<NoIdentity> for Vgic {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        self.frame_at(message.address)
            .and_then(|(frame, offset)| {
                self.ring(frame, offset, AccessWidth::Word, message.data.into())
            })
            .unwrap_or(Delivery::NoDoorbell)
    }
}

impl Vgic {
    /// Rings the doorbell at an offset of a frame; `None` if there is none of that width.
    fn ring(
        &self,
        frame: FrameAt<'_>,
        offset: u32,
        width: AccessWidth,
        value: u64,
    ) -> Option<Delivery> {
        match frame {
            FrameAt::Distributor => self.distributor().mbi().ring(offset, width, value),
            FrameAt::MbiAlias(base) => self.mbi_alias(base).ring(offset, width, value),
            FrameAt::Redistributor(cpu) => self.redistributor_of(cpu)?.ring(offset, width, value),
            FrameAt::V2m(config) => self.v2m(config).ring(offset, width, value),
            FrameAt::Its(_) => (offset == gits::TRANSLATER.offset()).then_some(Delivery::Blocked),
            FrameAt::Empty => None,
        }
    }
}

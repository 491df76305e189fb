//! Writes from devices without an identity, i.e. messages, and writes to other registers in a
//! doorbell's frame. Messages to an ITS aren't accepted on this path, because an ITS needs a
//! DeviceID.

use crate::monitor::access::AccessWidth;
use crate::vgic::{FrameAt, NotClaimed, Vgic};
use gic_arch::gits;
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};

/// Target of a device's write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceWrite {
    /// A doorbell, with the outcome of the message.
    Message(Delivery),
    /// Another register, which was written as if by a CPU.
    Register,
}

impl Vgic {
    /// Writes the low `width` of `value` on behalf of a device without an identity.
    ///
    /// The address may be that of a doorbell (`GICD_SETSPI_NSR`, `GICD_CLRSPI_NSR` and their alias,
    /// `GICR_SETLPIR`, `GICR_CLRLPIR`, GICv2m's `MSI_SETSPI_NS`) or of another register next to it.
    /// **This path provides no isolation:** a device that can reach a redistributor's doorbell can
    /// also reach `GICR_CTLR` and `GICR_PROPBASER`, and every device can signal every interrupt.
    /// Where possible, a VMM should give devices access only to the page of an ITS, a GICv2m frame
    /// or the [`VgicConfig::mbi_alias`] frame.
    ///
    /// `GITS_TRANSLATER` doesn't accept messages without an identity. Use [`its`](Self::its)
    /// instead.
    ///
    /// # Errors
    /// [`NotClaimed`] if the address is outside the model's regions.
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
            None => self.write_until_done(address, width, value).map(|()| DeviceWrite::Register),
        }
    }
}

/// Writes to a doorbell that doesn't need the sender's identity. Returns `Pending` if the interrupt
/// is pending afterwards, enabled or not, and `Blocked` if it isn't (e.g. because the message
/// cleared it). For any other address, returns `NoDoorbell` without any effect.
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
    /// Writes to the doorbell at an offset in a frame. Returns `None` if there is no doorbell of
    /// that width.
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

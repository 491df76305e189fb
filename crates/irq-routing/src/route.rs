//! Routes from GSIs to pins and messages.

use msi_types::{DeviceId, Line, MsiMessage};

/// An input pin of the interrupt controller. Pin `n` is the SPI with INTID `n` + 32. Only SPIs have
/// pins: LPIs are only reachable by messages, and PPIs through
/// [`irq_line`](crate::Router::irq_line).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pin(u16);

/// Error for a number that is not a pin's, or an INTID that is not an SPI's. The caller is at
/// fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is out of range: pins are 0 to 987, for the SPIs 32 to 1019")]
pub struct NotAPin(pub u32);

impl Pin {
    /// Number of pins: one for each SPI from 32 to 1019.
    pub const COUNT: u32 = 988;

    /// INTID of pin 0.
    pub(crate) const FIRST_SPI: u32 = 32;

    /// Returns the pin with this number.
    ///
    /// # Errors
    /// Returns [`NotAPin`] if `number` is not below [`COUNT`](Self::COUNT).
    pub const fn new(number: u32) -> Result<Self, NotAPin> {
        if number < Self::COUNT { Ok(Self::truncate(number)) } else { Err(NotAPin(number)) }
    }

    /// Returns the pin of the SPI with this INTID.
    ///
    /// # Errors
    /// Returns [`NotAPin`] if `intid` is not an SPI from 32 to 1019.
    pub const fn of_spi(intid: u32) -> Result<Self, NotAPin> {
        match intid.checked_sub(Self::FIRST_SPI) {
            Some(number) if number < Self::COUNT => Ok(Self::truncate(number)),
            _ => Err(NotAPin(intid)),
        }
    }

    /// Returns the pin's number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// Returns the pin's SPI.
    pub const fn line(self) -> Line {
        Line::Spi(self.get() + Self::FIRST_SPI)
    }

    const fn truncate(number: u32) -> Self {
        Self((number & 0xffff) as u16)
    }
}

/// A routed message's sender, as the interrupt controller sees it. KVM distinguishes the cases by
/// the `KVM_MSI_VALID_DEVID` flag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sender {
    /// No DeviceID, for doorbells that don't need one (GICv2m, message-based SPIs, `GICR_SETLPIR`).
    Anonymous,
    /// The sending device's DeviceID. An ITS translates by DeviceID and rejects messages without
    /// one.
    Device(DeviceId),
}

/// A message and its sender. An ITS needs both: it identifies an interrupt by DeviceID and EventID,
/// and the message data is the EventID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RoutedMessage {
    /// Sender of the message.
    pub sender: Sender,
    /// Address and data of the write.
    pub message: MsiMessage,
}

/// Destination of a GSI.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Route {
    /// An input pin.
    Pin(Pin),
    /// A message.
    Message(RoutedMessage),
}

impl Route {
    /// Creates a route to an ITS.
    pub const fn to_its(device: DeviceId, message: MsiMessage) -> Self {
        Self::Message(RoutedMessage { sender: Sender::Device(device), message })
    }

    /// Creates a route to a doorbell that ignores DeviceIDs.
    pub const fn to_doorbell(message: MsiMessage) -> Self {
        Self::Message(RoutedMessage { sender: Sender::Anonymous, message })
    }
}

/// An optional route, encoded in three words that fit in atomics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Words {
    /// Kind of the route, from 0 to 3.
    pub(crate) kind: u64,
    pub(crate) address: u64,
    /// Data or pin in the low half, DeviceID in the high half.
    pub(crate) rest: u64,
}

impl Words {
    pub(crate) const NONE: Self = Self { kind: 0, address: 0, rest: 0 };
    const PIN: u64 = 1;
    const ANONYMOUS: u64 = 2;
    const DEVICE: u64 = 3;

    pub(crate) fn of(route: Option<Route>) -> Self {
        match route {
            None => Self::NONE,
            Some(Route::Pin(pin)) => Self { kind: Self::PIN, address: 0, rest: pin.0.into() },
            Some(Route::Message(RoutedMessage {
                sender,
                message: MsiMessage { address, data },
            })) => {
                let (kind, device) = match sender {
                    Sender::Anonymous => (Self::ANONYMOUS, 0),
                    Sender::Device(device) => (Self::DEVICE, device.get()),
                };
                Self { kind, address, rest: u64::from(device) << 32 | u64::from(data) }
            }
        }
    }

    #[inline]
    pub(crate) fn route(self) -> Option<Route> {
        let (high, low) = ((self.rest >> 32) as u32, (self.rest & 0xffff_ffff) as u32);
        let message = |sender| RoutedMessage {
            sender,
            message: MsiMessage { address: self.address, data: low },
        };
        match self.kind {
            Self::PIN => Some(Route::Pin(Pin::truncate(low))),
            Self::ANONYMOUS => Some(Route::Message(message(Sender::Anonymous))),
            Self::DEVICE => Some(Route::Message(message(Sender::Device(DeviceId::new(high))))),
            _ => None,
        }
    }
}

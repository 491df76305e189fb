//! Wired-to-MSI bridges: controllers whose wired inputs become messages, each with a vector of its
//! own.

use super::msi_device::{MsiDevice, MsiDeviceConfig};
use crate::error::{MsiDeviceError, RequestError};
use crate::interrupts::Interrupts;
use crate::irq::flow::Start;
use crate::irq::handler::{IrqContext, IrqReturn};
use crate::request::handle::IrqHandle;
use alloc::sync::Arc;
use core::fmt;
use msi_types::{MessageStore, MsiParent, RequesterId, StoreError, Trigger};

/// A bridge's registers: a message store with a slot for each input, such as HiSilicon's mbigen. An
/// input sends its message when it is triggered, and not again before it was [ended](Self::end).
pub trait InputBridge: MessageStore {
    /// Sets the trigger of an input. Its interrupt is disabled during the call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The input cannot be triggered like that.
    fn set_trigger(&self, input: u16, trigger: Trigger) -> Result<(), StoreError>;

    /// Ends an input's interrupt after its handler returned. If a level is still asserted, the
    /// bridge must send its message again.
    ///
    /// Context: any.
    fn end(&self, input: u16);
}

/// A bridge, as its bus knows it.
#[non_exhaustive]
pub struct BridgeConfig<'a> {
    /// For people: the node's name.
    pub name: &'a str,
    /// The bridge's requester ID.
    pub requester: RequesterId,
    /// The controller that takes its messages, with the layers between.
    pub parent: Arc<dyn MsiParent>,
    /// Its registers.
    pub bridge: Arc<dyn InputBridge>,
}

impl<'a> BridgeConfig<'a> {
    /// A bridge of this name and requester ID, served by `parent`, with the registers `bridge`.
    pub fn new(
        name: &'a str,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        bridge: Arc<dyn InputBridge>,
    ) -> Self {
        Self { name, requester, parent, bridge }
    }
}

impl fmt::Debug for BridgeConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeConfig")
            .field("name", &self.name)
            .field("requester", &self.requester)
            .finish_non_exhaustive()
    }
}

/// A bridge's input, as the driver of the device on it wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InputRequest<'a> {
    /// The input.
    pub input: u16,
    /// The device's trigger.
    pub trigger: Trigger,
    /// For people.
    pub name: &'a str,
    /// Enabled or disabled after the request.
    pub start: Start,
}

impl<'a> InputRequest<'a> {
    /// A request of an input, enabled at once.
    pub const fn new(input: u16, trigger: Trigger, name: &'a str) -> Self {
        Self { input, trigger, name, start: Start::Enabled }
    }

    msi_types::setters! {
        with_input: input: u16,
        with_trigger: trigger: Trigger,
        with_name: name: &'a str,
        with_start: start: Start,
    }
}

/// A bridge at its controller. Each input that ever had a handler has a vector, which stays the
/// input's until the bridge is dropped.
#[must_use = "dropping the bridge gives its vectors back"]
pub struct WiredBridge {
    device: MsiDevice,
    bridge: Arc<dyn InputBridge>,
}

impl WiredBridge {
    /// Attaches the bridge to its controller.
    ///
    /// Context: task; may sleep.
    pub fn attach(
        interrupts: &Interrupts,
        config: BridgeConfig<'_>,
    ) -> Result<Self, MsiDeviceError> {
        let BridgeConfig { name, requester, parent, bridge } = config;
        let store: Arc<dyn MessageStore> = bridge.clone();
        let device =
            MsiDevice::attach(interrupts, MsiDeviceConfig::new(name, requester, parent, store))?;
        Ok(Self { device, bridge })
    }

    /// Sets the trigger and the handler of an input. The input is ended after each run of the
    /// handler.
    ///
    /// Context: task; may sleep.
    pub fn request<R: Into<IrqReturn>>(
        &self,
        request: InputRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        let input = request.input;
        let is_new = self.device.vector(input).is_none();
        if is_new {
            self.device.allocate_at(&[input])?;
        }
        self.install(request, handler).inspect_err(|_| {
            if is_new {
                // The first error is the one to report.
                let _ = self.device.free(input);
            }
        })
    }

    fn install<R: Into<IrqReturn>>(
        &self,
        InputRequest { input, trigger, name, start }: InputRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        let bridge = self.bridge.clone();
        let run = move |context: &IrqContext<'_>| {
            let verdict = handler(context).into();
            bridge.end(input);
            verdict
        };
        let handle = self.device.request_disabled(input, name, run)?;
        self.bridge.set_trigger(input, trigger).map_err(MsiDeviceError::from)?;
        // The last handler may have gone while the input waited for its end.
        self.bridge.end(input);
        if start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// The bridge's domain.
    pub const fn device(&self) -> &MsiDevice {
        &self.device
    }
}

impl fmt::Debug for WiredBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WiredBridge").field("device", &self.device).finish_non_exhaustive()
    }
}

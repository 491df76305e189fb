//! Wired-to-MSI bridges: controllers that turn each of their wired inputs into a message.

use super::msi_device::{MsiDevice, MsiDeviceConfig};
use crate::error::{MsiDeviceError, RequestError};
use crate::interrupts::Interrupts;
use crate::irq::handler::{IrqContext, IrqReturn};
use crate::request::handle::IrqHandle;
use alloc::sync::Arc;
use msi_types::{MessageStore, MsiParent, RequesterId, StoreError, Trigger};

/// Register access to a bridge such as HiSilicon's mbigen: a message store with one slot per input.
/// An input sends its message when it is triggered, and must not send another one until it is
/// [ended](Self::end).
pub trait InputBridge: MessageStore {
    /// Sets an input's trigger mode. The interrupt is disabled during the call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The input does not support this trigger mode.
    fn set_trigger(&self, input: u16, trigger: Trigger) -> Result<(), StoreError>;

    /// Ends an input's interrupt after its handler has returned. If a level-triggered input is
    /// still asserted, the bridge must send its message again.
    ///
    /// Context: any.
    fn end(&self, input: u16);
}

impl<'a> MsiDeviceConfig<'a, dyn InputBridge> {
    /// Creates the configuration for a bridge with this name and requester ID. `parent` serves it,
    /// and `bridge` provides access to its registers.
    pub fn of_bridge(
        name: &'a str,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        bridge: Arc<dyn InputBridge>,
    ) -> Self {
        Self { name, requester, parent, store: bridge, copy: None }
    }
}

/// A bridge that is attached to its controller. An input keeps its vector from its first request
/// until the bridge is dropped.
#[must_use = "dropping the bridge frees its vectors"]
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
        config: MsiDeviceConfig<'_, dyn InputBridge>,
    ) -> Result<Self, MsiDeviceError> {
        let MsiDeviceConfig { name, requester, parent, store: bridge, .. } = config;
        let store: Arc<dyn MessageStore> = bridge.clone();
        let device =
            MsiDevice::attach(interrupts, MsiDeviceConfig::new(name, requester, parent, store))?;
        Ok(Self { device, bridge })
    }

    /// Installs an input's handler, sets the trigger mode, and enables the interrupt. Each time the
    /// handler returns, the input is ended.
    ///
    /// Context: task; may sleep.
    pub fn request<R: Into<IrqReturn>>(
        &self,
        input: u16,
        trigger: Trigger,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.request_disabled(input, trigger, name, handler).inspect(IrqHandle::enable)
    }

    /// Installs an input's handler like [`request`](Self::request), except that the interrupt stays
    /// disabled until the first [`IrqHandle::enable`].
    ///
    /// Context: task; may sleep.
    pub fn request_disabled<R: Into<IrqReturn>>(
        &self,
        input: u16,
        trigger: Trigger,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        let is_new = self.device.vector(input).is_none();
        if is_new {
            self.device.allocate_at(&[input])?;
        }
        self.install(input, trigger, name, handler).inspect_err(|_| {
            if is_new {
                // Report the first error.
                let _ = self.device.free(input);
            }
        })
    }

    fn install<R: Into<IrqReturn>>(
        &self,
        input: u16,
        trigger: Trigger,
        name: &str,
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
        // The previous handler may have been removed before it could end the input.
        self.bridge.end(input);
        Ok(handle)
    }

    /// Returns the bridge's domain.
    pub const fn device(&self) -> &MsiDevice {
        &self.device
    }
}

msi_types::debug_by!(WiredBridge as "WiredBridge", |it| {device: it.device});

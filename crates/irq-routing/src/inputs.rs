//! Inputs of an interrupt controller to which GSIs can be routed: lines, ITSs and doorbells.

use crate::explainer::Explainer;
use crate::translation::Translations;
use crate::{RoutedMessage, Sender, TranslateMsi};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use msi_types::explain::ExplainInput;
use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};

/// An interrupt controller model's inputs, to which GSIs can be routed. The `with_` functions add
/// ITSs and doorbells.
#[derive(Clone)]
pub struct Inputs {
    lines: Arc<dyn SetLine>,
    its: Vec<Arc<dyn SignalMsi<DeviceId>>>,
    doorbells: Vec<Arc<dyn SignalMsi<NoIdentity>>>,
    pub(crate) explainer: Explainer,
    /// The IOMMU in front of `its`, if any.
    pub(crate) translations: Option<Arc<Translations>>,
}

/// ITSs and doorbells behind an IOMMU.
struct Behind {
    translations: Arc<Translations>,
    inputs: Inputs,
}

impl SignalMsi<DeviceId> for Behind {
    fn signal_msi(&self, device: DeviceId, message: MsiMessage) -> Delivery {
        let message = RoutedMessage { sender: Sender::Device(device), message };
        let sent = self.translations.send(message, |message| self.inputs.send(message));
        sent.unwrap_or(Delivery::Blocked)
    }
}

impl Inputs {
    /// Creates inputs with lines but without ITSs or doorbells.
    pub fn new(lines: Arc<dyn SetLine>) -> Self {
        let (its, doorbells, explainer) = Default::default();
        Self { lines, its, doorbells, explainer, translations: None }
    }

    /// Adds an ITS. The ITS must return [`Delivery::NoDoorbell`] for a message that is not written
    /// to the ITS's own doorbell.
    #[must_use]
    pub fn with_its(mut self, its: Arc<dyn SignalMsi<DeviceId>>) -> Self {
        self.its.push(its);
        self
    }

    /// Adds doorbells that ignore the DeviceID: GICv2m, message-based SPIs, direct LPIs.
    #[must_use]
    pub fn with_doorbells(mut self, doorbells: Arc<dyn SignalMsi<NoIdentity>>) -> Self {
        self.doorbells.push(doorbells);
        self
    }

    /// Sets the controller whose explanations are appended to those of routes and MSI-X tables.
    #[must_use]
    pub fn with_explainer(mut self, controller: Arc<dyn ExplainInput>) -> Self {
        self.explainer.controller = Some(controller);
        self
    }

    /// Sets the IOMMU that translates messages from devices to the ITSs and doorbells. The order of
    /// the `with_` functions does not matter. The router owns the IOMMU, so an IOMMU that
    /// invalidates must hold its routers weakly.
    #[must_use]
    pub fn with_translator(mut self, iommu: Arc<dyn TranslateMsi>) -> Self {
        self.explainer.iommu = Some(iommu);
        self
    }

    /// Puts the IOMMU in front of the ITSs and doorbells, if the caller has set one.
    pub(crate) fn translated(mut self) -> Self {
        if let Some(iommu) = &self.explainer.iommu {
            let translations = Arc::new(Translations::new(iommu.clone()));
            let behind = Behind { translations: translations.clone(), inputs: self.clone() };
            self.its = vec![Arc::new(behind)];
            self.translations = Some(translations);
        }
        self
    }

    /// Drives a line.
    pub(crate) fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.lines.set_line(line, level)
    }

    /// Signals an edge on a line.
    #[inline]
    pub(crate) fn pulse(&self, line: Line) -> Delivery {
        self.lines.pulse(line)
    }

    /// Sends a message to the doorbell at its address. Skips the ITSs if the message has no
    /// DeviceID. Other doorbells ignore DeviceIDs.
    #[inline]
    pub(crate) fn send(&self, RoutedMessage { sender, message }: RoutedMessage) -> Delivery {
        let identified = match sender {
            Sender::Device(device) => {
                first(self.its.iter().map(|its| its.signal_msi(device, message)))
            }
            Sender::Anonymous => return self.ring(message),
        };
        // Behind an IOMMU, the doorbells have already seen the translated message.
        if identified == Delivery::NoDoorbell && self.translations.is_none() {
            self.ring(message)
        } else {
            identified
        }
    }

    fn ring(&self, message: MsiMessage) -> Delivery {
        first(self.doorbells.iter().map(|doorbells| doorbells.signal_msi(NoIdentity, message)))
    }
}

/// Returns the result from the first controller to which the doorbell belongs.
fn first(mut answers: impl Iterator<Item = Delivery>) -> Delivery {
    answers.find(|answer| *answer != Delivery::NoDoorbell).unwrap_or(Delivery::NoDoorbell)
}

msi_types::debug_by!(
    Inputs as "Inputs",
    |it| {its: it.its.len(), doorbells: it.doorbells.len(), translations: it.translations}
);

//! Explanations of routes and messages, which continue in the controller's explanation.

use crate::{Access, Pin, Route, RoutedMessage, Sender, TranslateMsi};
use alloc::sync::Arc;
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle};
use msi_types::{Gsi, HwIrq, MsiMessage};

/// The controller that explains messages and lines, and the IOMMU in front of it, if the VMM has
/// set them.
#[derive(Clone, Default)]
pub(crate) struct Explainer {
    pub(crate) controller: Option<Arc<dyn ExplainInput>>,
    pub(crate) iommu: Option<Arc<dyn TranslateMsi>>,
}

impl Explainer {
    /// Explains what stops a GSI with this route.
    pub(crate) fn explain_route(&self, gsi: Gsi, route: Option<Route>) -> Explanation {
        match route {
            None => Explanation::stopped(Obstacle::NoRoute { gsi }),
            Some(Route::Message(message)) => {
                self.explain_message(message).with_fact(Fact::Message(message.message))
            }
            Some(Route::Pin(pin)) => {
                let interrupt = HwIrq::new(pin.get() + Pin::FIRST_SPI);
                let line = self.explained(|controller| controller.explain_line(pin.line()));
                line.with_fact(Fact::Route { gsi, interrupt })
            }
        }
    }

    /// Explains what stops a message, starting at its doorbell.
    pub(crate) fn explain_message(&self, routed: RoutedMessage) -> Explanation {
        let MsiMessage { address: iova, data } = routed.message;
        let Sender::Device(device) = routed.sender else {
            return self.explained(|controller| controller.explain_message(None, routed.message));
        };
        let translated = match &self.iommu {
            Some(iommu) => iommu.translate(device, iova, Access::Prefetch),
            None => Some(iova),
        };
        let Some(address) = translated else {
            return Explanation::stopped(Obstacle::NotMapped { iova });
        };
        let message = MsiMessage { address, data };
        self.explained(|controller| controller.explain_message(Some(device), message))
    }

    fn explained(&self, explain: impl FnOnce(&dyn ExplainInput) -> Explanation) -> Explanation {
        self.controller.as_deref().map_or_else(Explanation::new, explain)
    }
}

//! Explanations of routes and messages, which continue in the controller's explanation.

use crate::{Pin, Route, RoutedMessage, Sender};
use alloc::sync::Arc;
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle};
use msi_types::{Gsi, HwIrq};

/// The controller that explains messages and lines, if the VMM has set one.
#[derive(Clone, Default)]
pub(crate) struct Explainer(Option<Arc<dyn ExplainInput>>);

impl Explainer {
    pub(crate) const fn new(controller: Arc<dyn ExplainInput>) -> Self {
        Self(Some(controller))
    }

    /// Explains what stops a GSI with this route.
    pub(crate) fn explain_route(&self, gsi: Gsi, route: Option<Route>) -> Explanation {
        match route {
            None => Explanation::new().with_obstacle(Obstacle::NoRoute { gsi }),
            Some(Route::Message(message)) => Explanation::new()
                .with_fact(Fact::Message(message.message))
                .and_then(|| self.explain_message(message)),
            Some(Route::Pin(pin)) => {
                let interrupt = HwIrq::new(pin.get() + Pin::FIRST_SPI);
                let route = Explanation::new().with_fact(Fact::Route { gsi, interrupt });
                route.and_then(|| self.explained(|controller| controller.explain_line(pin.line())))
            }
        }
    }

    /// Explains what stops a message, starting at its doorbell.
    pub(crate) fn explain_message(&self, routed: RoutedMessage) -> Explanation {
        let sender = match routed.sender {
            Sender::Device(device) => Some(device),
            Sender::Anonymous => None,
        };
        self.explained(|controller| controller.explain_message(sender, routed.message))
    }

    fn explained(&self, explain: impl FnOnce(&dyn ExplainInput) -> Explanation) -> Explanation {
        self.0.as_deref().map_or_else(Explanation::new, explain)
    }
}

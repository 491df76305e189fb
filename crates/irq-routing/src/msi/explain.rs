//! Explanations of why a vector of an MSI capability does not interrupt a CPU.

use super::MsiCapability;
use crate::msix::MsixTable;
use msi_types::explain::{Explanation, Fact, Obstacle};

impl MsiCapability {
    /// Explains why a vector does not interrupt a CPU, like [`MsixTable::explain`]. A vector that
    /// the guest has not granted does not exist.
    pub fn explain(&self, vector: u16) -> Explanation {
        match self.granted() {
            0 => Explanation::new().with_obstacle(Obstacle::MessagesDisabled),
            granted if vector < granted => {
                let (data, explained) = (self.registers.lock().data(), self.table.explain(vector));
                if data & (granted - 1) == 0 {
                    return explained;
                }
                explained.with_observation(Fact::DataReplaced { data, granted })
            }
            granted => {
                let missing = Obstacle::NoVector { vector, vectors: granted };
                Explanation::new().with_obstacle(missing)
            }
        }
    }

    /// Explains a vector of a function that also has an MSI-X table: a vector of the capability if
    /// MSI is enabled, and otherwise of the table. A guest must not enable both.
    pub fn explain_beside(&self, msix: &MsixTable, vector: u16) -> Explanation {
        match (self.is_enabled(), msix.control().enable()) {
            (true, true) => Explanation::new().with_obstacle(Obstacle::BothEnabled),
            (true, false) => self.explain(vector),
            (false, _) => msix.explain(vector),
        }
    }
}

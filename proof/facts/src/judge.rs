//! Facts from KVM's judge, in addition to the outcomes of its checks.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeFact {
    /// A row of the state that KVM saved.
    Snapshot {
        /// The row.
        row: Text,
    },
    /// A piece of a snapshot that was saved by a procedure, in the form that `doorbell snapshot`
    /// reads.
    Json {
        /// The procedure's name.
        procedure: Text,
        /// The piece.
        json: Text,
    },
}

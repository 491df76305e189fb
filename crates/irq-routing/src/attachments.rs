//! Parts of a machine that signal through a router. A save compares them with the parts that it
//! covers, because the signals of a part that is left out would be lost.

use crate::lock::Mutex;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// Names of the parts that signal through a router.
#[derive(Clone, Default)]
pub struct Attachments(Arc<Mutex<Vec<Weak<String>>>>);

msi_types::debug_by!(Attachments as "Attachments", |it| {});

impl Attachments {
    /// Adds a part for as long as the returned value exists.
    pub(crate) fn attach(&self, name: String) -> Attachment {
        let name = Arc::new(name);
        let mut names = self.0.lock();
        names.retain(|name| name.strong_count() > 0);
        names.push(Arc::downgrade(&name));
        drop(names);
        Attachment { name, all: self.clone() }
    }

    /// Returns the name of a part that is attached, but not in `parts`.
    pub fn missing(&self, parts: &[&Attachment]) -> Option<String> {
        let names = self.0.lock();
        let is_missing = |name: &Arc<String>| !parts.iter().any(|one| Arc::ptr_eq(&one.name, name));
        names.iter().filter_map(Weak::upgrade).find(is_missing).map(|name| (*name).clone())
    }
}

/// Membership of a part in [`Attachments`].
#[derive(Debug)]
pub struct Attachment {
    pub(crate) name: Arc<String>,
    pub(crate) all: Attachments,
}

impl Attachment {
    /// Returns all parts that signal through the same router.
    pub const fn all(&self) -> &Attachments {
        &self.all
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Things in use, shared by everybody in the process who asks for the same.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::error::Result;

type Slot<V> = Arc<Mutex<Weak<V>>>;

/// Keeps nothing alive: a value goes when its last user drops it. Loading holds the value's own
/// slot only.
pub(super) struct Registry<K, V>(Mutex<Option<HashMap<K, Slot<V>>>>);

impl<K: Eq + Hash, V> Registry<K, V> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The value in use under this key, or a new one.
    pub(super) fn get_or_load(&self, key: K, load: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = slots.get_or_insert_default();
            // Slots that nobody loads into or uses any more.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.lock().is_ok_and(|v| v.strong_count() > 0)
            });
            slots.entry(key).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = slot.upgrade() {
            return Ok(value);
        }
        let value = Arc::new(load()?);
        *slot = Arc::downgrade(&value);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NnError;

    #[test]
    fn values_are_shared_while_in_use() {
        let registry = Registry::<u8, u32>::new();
        let first = registry.get_or_load(1, || Ok(10)).unwrap();
        let again = registry.get_or_load(1, || Ok(11)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(*registry.get_or_load(2, || Ok(20)).unwrap(), 20);
        drop((first, again));
        let failed = registry.get_or_load(1, || Err(NnError::Cancelled));
        assert!(matches!(failed, Err(NnError::Cancelled)));
        assert_eq!(*registry.get_or_load(1, || Ok(12)).unwrap(), 12);
    }
}

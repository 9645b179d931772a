//! What a target requires of every run: kept in the target, and stated by the operator alone. A pipeline file can only add to it.

use serde::{Deserialize, Serialize};

use crate::spec::WindowSpec;

/// The most keys of one block that a target allows unless its policy says otherwise.
pub const MAX_KEY_BLOCK: u64 = 100_000_000;

/// What a target requires of every run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// Whether conversion mode must be on.
    pub conversion_mode: bool,
    /// How many people must approve the plan.
    pub approvals: u32,
    /// The most keys that a run may reserve for a table.
    pub max_key_block: u64,
    /// Whether the target was made now: then it is no production yet, and not even the pipeline file's own mode is asked for.
    #[serde(skip)]
    pub is_new: bool,
    /// When runs may begin and insert; at any time if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSpec>,
}

impl Policy {
    /// The policy of a target that has stated none: `conversion_mode` depends on the kind of target.
    pub fn unstated(conversion_mode: bool) -> Self {
        Self { conversion_mode, approvals: 0, max_key_block: MAX_KEY_BLOCK, is_new: false, window: None }
    }

    /// The policy of a target that was made now.
    pub fn of_new() -> Self {
        Self { is_new: true, ..Self::unstated(false) }
    }

    /// The window as targets keep it: JSON, without what is not stated.
    pub(crate) fn window_json(&self) -> Option<String> {
        let mut window = serde_json::to_value(self.window.as_ref()?).ok()?;
        if let Some(parts) = window.as_object_mut() {
            parts.retain(|_, part| !part.is_null());
        }
        Some(window.to_string())
    }

    /// Reads the window that a target keeps.
    pub(crate) fn window_of(json: Option<&str>) -> Result<Option<WindowSpec>, serde_json::Error> {
        json.map(serde_json::from_str).transpose()
    }
}

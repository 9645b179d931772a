//! The policy of a target: its requirements for every run. The target stores it, and only the operator sets it. A pipeline file can only
//! add requirements.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::spec::WindowSpec;

/// The default limit on the keys of one block.
pub const MAX_KEY_BLOCK: u64 = 100_000_000;

/// The requirements of a target for every run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// Whether conversion mode must be on.
    pub conversion_mode: bool,
    /// How many approvals the plan needs.
    pub approvals: u32,
    /// The most keys that a run may reserve for a table.
    pub max_key_block: u64,
    /// Whether the target was just created. It is then not in production yet, and not even the pipeline file's own mode is required.
    #[serde(skip)]
    pub is_new: bool,
    /// When runs may begin and insert; None for any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSpec>,
    /// The stored window, if it cannot be read. No run is admitted then.
    #[serde(skip)]
    pub unreadable_window: Option<String>,
}

impl Policy {
    /// Returns the policy of a target that has set none; `conversion_mode` depends on the kind of target.
    pub fn unstated(conversion_mode: bool) -> Self {
        Self {
            conversion_mode,
            approvals: 0,
            max_key_block: MAX_KEY_BLOCK,
            is_new: false,
            window: None,
            unreadable_window: None,
        }
    }

    /// Returns the policy of a target that was just created.
    pub fn of_new() -> Self {
        Self { is_new: true, ..Self::unstated(false) }
    }

    /// Returns the window as targets store it: JSON, without unset parts.
    pub(crate) fn window_json(&self) -> Option<String> {
        let mut window = serde_json::to_value(self.window.as_ref()?).ok()?;
        if let Some(parts) = window.as_object_mut() {
            parts.retain(|_, part| !part.is_null());
        }
        Some(window.to_string())
    }

    /// Takes the window as a target stores it.
    #[must_use]
    pub(crate) fn with_stored_window(self, json: Option<&str>) -> Self {
        let is_known = |window: &WindowSpec| TimeZone::get(&window.timezone).is_ok();
        let window = json.and_then(|json| serde_json::from_str(json).ok()).filter(is_known);
        let unreadable_window = json.filter(|_| window.is_none()).map(str::to_owned);
        Self { window, unreadable_window, ..self }
    }
}

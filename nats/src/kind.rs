//! What an event is. monday.com has two spellings for most kinds: what one subscribes to, and what
//! arrives (monday.md, Names). Both are accepted; the arriving one is kept.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum Kind {
    CreatePulse,
    UpdateColumnValue,
    UpdateName,
    ArchivePulse,
    DeletePulse,
    RestorePulse,
    MovePulseIntoGroup,
    MovePulseIntoBoard,
    MoveSubitem,
    CreateUpdate,
    EditUpdate,
    DeleteUpdate,
    CreateColumn,
    /// One item as monday.com's API has it (spec.md §4).
    ItemSnapshot,
    /// One user as monday.com's API has it (spec.md §4).
    UserSnapshot,
    /// Not known today: kept in the stream, ignored by the projections.
    Other(String),
}

impl Kind {
    /// All that are known today.
    pub const KNOWN: [Self; 15] = [
        Self::CreatePulse,
        Self::UpdateColumnValue,
        Self::UpdateName,
        Self::ArchivePulse,
        Self::DeletePulse,
        Self::RestorePulse,
        Self::MovePulseIntoGroup,
        Self::MovePulseIntoBoard,
        Self::MoveSubitem,
        Self::CreateUpdate,
        Self::EditUpdate,
        Self::DeleteUpdate,
        Self::CreateColumn,
        Self::ItemSnapshot,
        Self::UserSnapshot,
    ];

    /// The kind of an `event.type`, in either spelling.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "create_pulse" | "create_item" | "create_subitem" => Self::CreatePulse,
            "update_column_value"
            | "change_column_value"
            | "change_status_column_value"
            | "change_specific_column_value"
            | "change_subitem_column_value" => Self::UpdateColumnValue,
            "update_name" | "change_name" | "change_subitem_name" => Self::UpdateName,
            "archive_pulse" | "item_archived" | "subitem_archived" => Self::ArchivePulse,
            "delete_pulse" | "item_deleted" | "subitem_deleted" => Self::DeletePulse,
            "restore_pulse" | "item_restored" => Self::RestorePulse,
            "move_pulse_into_group"
            | "item_moved_to_any_group"
            | "item_moved_to_specific_group" => Self::MovePulseIntoGroup,
            "move_pulse_into_board" => Self::MovePulseIntoBoard,
            "move_subitem" => Self::MoveSubitem,
            "create_update" | "create_subitem_update" => Self::CreateUpdate,
            "edit_update" => Self::EditUpdate,
            "delete_update" => Self::DeleteUpdate,
            "create_column" => Self::CreateColumn,
            "item_snapshot" => Self::ItemSnapshot,
            "user_snapshot" => Self::UserSnapshot,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Does the spelling itself say that the item is a subitem?
    pub fn names_subitem(event_type: &str) -> bool {
        event_type.contains("subitem")
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(other) => other,
            known => known.token(),
        }
    }

    /// The kind as a token of a subject or a label of a metric: bounded and plain, whatever was sent.
    pub fn token(&self) -> &'static str {
        match self {
            Self::CreatePulse => "create_pulse",
            Self::UpdateColumnValue => "update_column_value",
            Self::UpdateName => "update_name",
            Self::ArchivePulse => "archive_pulse",
            Self::DeletePulse => "delete_pulse",
            Self::RestorePulse => "restore_pulse",
            Self::MovePulseIntoGroup => "move_pulse_into_group",
            Self::MovePulseIntoBoard => "move_pulse_into_board",
            Self::MoveSubitem => "move_subitem",
            Self::CreateUpdate => "create_update",
            Self::EditUpdate => "edit_update",
            Self::DeleteUpdate => "delete_update",
            Self::CreateColumn => "create_column",
            Self::ItemSnapshot => "item_snapshot",
            Self::UserSnapshot => "user_snapshot",
            Self::Other(_) => "other",
        }
    }
}

impl From<String> for Kind {
    fn from(text: String) -> Self {
        Self::of(&text)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

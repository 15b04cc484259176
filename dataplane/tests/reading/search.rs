//! The role search: who sees what, page by page, and with a store away.

mod away;
mod complete;
mod faults;
mod shares;
mod isolation;
mod across;
mod language;
mod meaning;
mod counting;
mod words;
mod paging;
mod detail;
mod context;
mod export;
mod letters;
mod usage;
mod privileges;
mod whole;
mod scan;

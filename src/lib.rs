//! Insert-only incremental conversion: delta files into a live production database, keyed, checked and reconciled.
//!
//! The floor plan, from the top down; what is on a floor uses its own floor and those below, never one above:
//!
//! | floor | module | what it is |
//! |---|---|---|
//! | 5 | [`cli`] | the commands |
//! | 4 | [`run`] | the route of a run: orchestrators of named phases |
//! | 4 | [`report`] | a run as text, JSON, HTML, JUnit, Markdown, and annotations |
//! | 3 | [`keys`] | new keys: offset, references, the key map |
//! | 3 | [`check`] | SQL → violations → the verdict on every row |
//! | 3 | [`scaffold`] | a live schema and delta files → a pipeline file to start from |
//! | 2 | [`plan`] | pipeline file + catalog → plan: pure data |
//! | 2 | [`safeguard`] | what must hold before anything is written: conversion mode, window |
//! | 2 | [`source`] | delta files → batches with file and line |
//! | 2 | [`backup`] | the key map's segments in a store |
//! | 1 | [`engine`] | DataFusion, and the rows of the delta |
//! | 1 | [`target`] | production, staging, and control tables: roles and phases |
//! | 0 | [`spec`] | the pipeline file as the user wrote it |
//! | 0 | [`journal`] | what happens in a run, as events |
//! | 0 | [`output_files`] | the files that a run leaves, and who may read them |
//! | 0 | [`progress`] | steps of a run, and who listens to them |
//! | 0 | [`diagnostic`] | problems with their places, and the redaction of secrets |
//! | 0 | [`failpoint`] | points at which tests stop the process |
//! | 0 | [`error`] | what can go wrong, by whose fault it is |

pub mod backup;
pub mod check;
pub mod cli;
pub mod diagnostic;
pub mod engine;
pub mod error;
pub mod failpoint;
pub mod journal;
pub mod keys;
pub mod output_files;
pub mod plan;
pub mod progress;
pub mod report;
pub mod run;
pub mod safeguard;
pub mod scaffold;
pub mod source;
pub mod spec;
pub mod target;

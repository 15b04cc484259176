// Made from the words of the API by `make generate`: do not edit.
/** The answer to accepted events. A 202 is a promise: the batch is on the queue's disk. */
export type Accepted = {
  /** Events that are kept. */
  accepted: number;
  /** The batch, to ask for. */
  batch_id: string;
  /** Whether the same body was kept before under the same `Idempotency-Key`; absent where that is not known. */
  duplicate?: boolean | null;
  /** Lets `GET /api/batches/{id}` tell of the batch before it is stored. */
  receipt: string;
  /** Lines that became dead letters at once. */
  rejected: number;
  /** How far the batch has come: `stored` or `queued`, from `POST /data/` alone. */
  state?: BatchState | null;
};
/** An amount of events. */
export type Amount = {
  /** Bytes of their lines as they are stored, before compression. */
  bytes: number;
  /** Events. */
  events: number;
};
/** An answer to a question: events, a table or a chart, as its stages say. */
export type Answer = Table | Series | Events;
/** How far a batch has come. */
export type Batch = {
  /** When it was accepted. */
  accepted_at: string;
  /** When its raw bytes were moved to the object store. */
  archived_at: string | null;
  /** The batch's id. */
  batch_id: string;
  /** Whether nothing is missing from it. */
  complete: boolean;
  /** Lines of it that went to the dead letters; unknown while it is queued. */
  dead_letters: number | null;
  /** Lines of it that the pipeline's stages dropped; unknown while it is queued. */
  dropped: number | null;
  /** Events in it; while it is queued, its lines. */
  events: number;
  /** The batch that had its `Idempotency-Key` first, if it is not this one. */
  first_batch_id?: string | null;
  /** When it could be searched. */
  indexed_at: string | null;
  /** Why it is not complete, or what is special about it. */
  notice?: string | null;
  /** What else came under its `Idempotency-Key` and is not it. */
  resends: Array<Resend>;
  /** Where this answer comes from. */
  source: Source;
  /** The furthest state that it has reached. */
  state: BatchState;
  /** When its rows were written. */
  stored_at: string | null;
};
/** How far a batch has come. A batch that is archived before it could be indexed is `stored`. */
export type BatchState = "queued" | "stored" | "indexed" | "archived";
/** A cell of a table, or a point of a line. */
export type Cell = number | number | string | null;
/** One text to choose, or a list of them. */
export type Choices = string | Array<string>;
/** A column of a table. */
export type Column = {
  /** What its cells are. */
  kind: ColumnKind;
  /** A field, or a function such as `p95(latency_ms)`. */
  name: string;
};
/** What a column's cells are. */
export type ColumnKind = "group" | "number";
/** Something that may stand at the cursor. */
export type Completion = {
  /** What it does. */
  about?: string | null;
  /** How many events have it: all of a value's, and of a field's those in a sample. */
  count?: number | null;
  /** What it is. */
  kind: CompletionKind;
  /** What to write. */
  text: string;
};
/** What a completion is. */
export type CompletionKind = "field" | "value" | "stage" | "function";
/** What a query may go on with. */
export type Completions = {
  /** Whether nothing is missing: values and fields are left out where they can't be had in time. */
  complete: boolean;
  /** What may stand there, the likeliest first. */
  items: Array<Completion>;
  /** How many bytes are replaced. */
  length: number;
  /** Why it is not complete. */
  notice?: string | null;
  /** Where what is replaced begins, in bytes of the query. */
  position: number;
};
/** One event between its neighbours. Read from the top, time goes forward. */
export type Context = {
  /** What came directly after it, the oldest first. */
  after: Array<Item>;
  /** What came directly before it, the oldest first. */
  before: Array<Item>;
  /** Whether no neighbour is missing. */
  complete: boolean;
  /** What to send as `cursor` for what came before `before`; null if there is nothing. */
  earlier_cursor: string | null;
  /** The event. */
  event: Item;
  /** What to send as `cursor` for what came after `after`; null if there is nothing yet. */
  later_cursor: string | null;
  /** Why it is not complete. */
  notice?: string | null;
  /** What the neighbours have in common with it; null if nothing. */
  same: Same | null;
  /** Where the neighbours come from. */
  source: Source;
};
/** A dead letter in a list. */
export type DeadLetter = {
  /** When it was accepted. */
  accepted_at: string | null;
  /** How often it was tried. */
  attempts: number;
  /** The request that brought it; null for what could not be read at all. */
  batch_id: string | null;
  /** Why it is no event, for programs. */
  code: string;
  /** When it was put among the dead letters. */
  created_at: string;
  /** The id that its event would have, and will have once it is redriven. */
  id: string;
  /** The pipeline that it failed in. */
  pipeline: string;
  /** That pipeline's generation. */
  pipeline_generation: number;
  /** How many original bytes there are. */
  raw_bytes: number;
  /** Where they are. */
  raw_path: string | null;
  /** Why, for people. Not `error`, which is what a refusal has. */
  reason: string;
  /** Whether it can be tried again. */
  redrivable: boolean;
  /** Since when it waits to be tried again. */
  redrive_requested_at: string | null;
  /** When it was tried last, if more than once. */
  retried_at: string | null;
};
/** How original bytes stand in JSON. */
export type Encoding = "utf-8" | "base64";
/** One whole event. */
export type Event = {
  /** When it was accepted. */
  accepted_at: string;
  /** The application that the service belongs to. */
  application: string | null;
  /** Fields that LoggerHub has no name for. */
  attributes: Record<string, unknown> | null;
  /** The request that brought it. */
  batch_id: string;
  /** Whether nothing is missing from it. */
  complete: boolean;
  /** Remarks: `time_of_acceptance`. */
  flags: Array<string>;
  /** The whole text, where it is more than the message. */
  full_log: string | null;
  /** The event's id. */
  id: string;
  /** Whether full-text search can find it. */
  indexed: boolean;
  /** The programming language. */
  language: string | null;
  /** TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or what was sent. */
  level: string;
  /** The message, at most 500 characters of it in a list. */
  message: string;
  /** What the client sent as `metadata`. */
  metadata: Record<string, unknown> | null;
  /** Why it is not complete. */
  notice?: string | null;
  /** Where its raw bytes are. */
  raw_path: string | null;
  /** What sent it. */
  service: string;
  /** Where this answer comes from. */
  source: Source;
  /** Whose it is. */
  tenant: string;
  /** When it happened. */
  timestamp: string;
};
/** Events, newest first. */
export type Events = {
  /** The fields that `| fields` asks to show; empty means all. */
  columns: Array<string>;
  /** Whether every event that matches is on this page or a later one. */
  complete: boolean;
  /** The events, newest first unless the oldest were asked for. */
  items: Array<Item>;
  /** `events`. */
  kind: EventsKind;
  /** How many events `| grep` looked at. */
  looked_at?: number | null;
  /** What to send as `cursor` for the next page; null on the last. */
  next_cursor: string | null;
  /** Why it is not complete. */
  notice?: string | null;
  /** What was read of the raw lines, where they were searched. */
  scanned?: Scanned | null;
  /** Where this answer comes from. */
  source: Source;
  /** How long it took, in milliseconds. */
  took_ms: number;
};
/** `events`. */
export type EventsKind = "events";
/** What was understood of a query. */
export type Explanation = {
  /** What else may have been meant. */
  hints: Array<Hint>;
  /** A query that means the same and leaves nothing to guess. */
  normal: string;
  /** In a sentence. */
  text: string;
  /** Its pieces, in order, for an editor to colour. */
  tokens: Array<Token>;
};
/** One whole event. */
export type Exported = {
  /** When it was accepted. */
  accepted_at: string;
  /** The application that the service belongs to. */
  application: string | null;
  /** Fields that LoggerHub has no name for. */
  attributes: Record<string, unknown> | null;
  /** The request that brought it. */
  batch_id: string;
  /** False, and else left out: the raw line could not be read, and this is the event's row alone. */
  complete?: boolean;
  /** Remarks: `time_of_acceptance`. */
  flags: Array<string>;
  /** The whole text, where it is more than the message. */
  full_log: string | null;
  /** The event's id. */
  id: string;
  /** Whether full-text search can find it. */
  indexed: boolean;
  /** The programming language. */
  language: string | null;
  /** TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or what was sent. */
  level: string;
  /** The message, at most 500 characters of it in a list. */
  message: string;
  /** What the client sent as `metadata`. */
  metadata: Record<string, unknown> | null;
  /** Where its raw bytes are. */
  raw_path: string | null;
  /** What sent it. */
  service: string;
  /** Whose it is. */
  tenant: string;
  /** When it happened. */
  timestamp: string;
};
/** The values of a field. */
export type Facet = {
  /** The field. */
  field: string;
  /** Whether there are more values than these. */
  more: boolean;
  /** Events with other values. */
  other: number;
  /** Those that most events have. */
  values: Array<ValueCount>;
};
/** What the values of some fields are. */
export type Facets = {
  /** Whether every event that matches was looked at. */
  complete: boolean;
  /** Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is. */
  exact: boolean;
  /** The fields. */
  facets: Array<Facet>;
  /** Why it is not complete. */
  notice?: string | null;
  /** By how many events it was estimated. */
  sampled?: Sampled | null;
  /** Where it comes from. */
  source: Source;
  /** How long it took, in milliseconds. */
  took_ms: number;
  /** How many events match. */
  total: number;
};
/** A field, and how many events have it. */
export type FieldShare = {
  /** In how many of the events that were looked at. */
  events: number;
  /** Where it is: `metadata`, `attributes` or both. Empty for the fields that LoggerHub has names for. */
  in: Array<string>;
  /** Its name, as it is typed. */
  name: string;
  /** That as a share of them, from 0 to 1. */
  share: number;
  /** What its values are. */
  types: Array<FieldType>;
  /** Some of its values. */
  values: Array<string>;
};
/** What a value is. */
export type FieldType = "number" | "time" | "boolean" | "text";
/** The fields that events have. */
export type Fields = {
  /** Whether every event that matches was looked at. */
  complete: boolean;
  /** Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is. */
  exact: boolean;
  /** The fields, those that most events have first. */
  fields: Array<FieldShare>;
  /** How many more there are. */
  more: number;
  /** Why it is not complete. */
  notice?: string | null;
  /** By how many events it was estimated. */
  sampled?: Sampled | null;
  /** Where it comes from. */
  source: Source;
  /** How long it took, in milliseconds. */
  took_ms: number;
};
/** One text frame of a live tail. */
export type Frame = {
  type: "ready";
} | {
  /** The event. */
  event: TailEvent;
  type: "event";
} | {
  /** How many. */
  count: number;
  type: "dropped";
} | {
  /** For programs. */
  code: NoticeCode;
  /** For people. */
  message: string;
  type: "notice";
};
/** Another query that may have been meant. */
export type Hint = {
  /** The whole query. */
  query: string;
  /** Why. */
  text: string;
};
/** An event in a list: what its row holds. */
export type Item = {
  /** When it was accepted. */
  accepted_at: string;
  /** The application that the service belongs to. */
  application: string | null;
  /** The request that brought it. */
  batch_id: string;
  /** Remarks: `time_of_acceptance`. */
  flags: Array<string>;
  /** The event's id. */
  id: string;
  /** Whether full-text search can find it. */
  indexed: boolean;
  /** The programming language. */
  language: string | null;
  /** TRACE, DEBUG, INFO, WARN, ERROR, FATAL, or what was sent. */
  level: string;
  /** The message, at most 500 characters of it in a list. */
  message: string;
  /** Where its raw bytes are. */
  raw_path: string | null;
  /** What sent it. */
  service: string;
  /** Whose it is. */
  tenant: string;
  /** When it happened. */
  timestamp: string;
};
/** The last line. */
export type LastLine = {
  /** What was exported. */
  export: Summary;
};
/** Which dead letters, in a body. */
export type LetterFilter = {
  /** Of this batch. */
  batch?: string;
  /** With any of these codes. */
  code?: Choices;
  /** Put among the dead letters at this time or after. */
  from?: string;
  /** Of any of these pipelines. */
  pipeline?: Choices;
  /** Before this time. */
  to?: string;
};
/** A page of dead letters. */
export type Letters = {
  /** Whether every letter that matches is on this page or a later one. */
  complete: boolean;
  /** The letters, newest first. */
  items: Array<DeadLetter>;
  /** What to send as `cursor` for the next page; null on the last. */
  next_cursor: string | null;
  /** Where this answer comes from. */
  source: Source;
};
/** A line of a chart. */
export type Line = {
  /** The value that its events have; null for those without one, and where there is but one line. */
  name: string | null;
  /** Its points, from `start` on. */
  points: Array<Cell>;
};
/** A page of a list or a search. */
export type Listing = {
  /** Whether every event that matches is on this page or a later one. */
  complete: boolean;
  /** The events, newest first unless the oldest were asked for. */
  items: Array<Item>;
  /** What to send as `cursor` for the next page; null on the last. */
  next_cursor: string | null;
  /** Why it is not complete. */
  notice?: string | null;
  /** What was read of the raw lines, where they were searched. */
  scanned?: Scanned | null;
  /** Where this answer comes from. */
  source: Source;
};
/** What was marked to be tried again. */
export type Marked = {
  /** How many letters. */
  marked: number;
  /** Whether more may match: ask again. */
  more: boolean;
};
/** Who a key belongs to, and what it may do. */
export type Me = {
  /** For how many days events can be searched at once. */
  hot_days: number;
  /** The key that asks. */
  key: MyKey;
  /** The tenant's plan. */
  plan: string;
  /** Events and bytes that may be sent in a second; null where there is no limit. */
  quotas: MyQuotas;
  /** `active`, or `suspended`: nothing new is accepted then. */
  state: string;
  /** The tenant. */
  tenant: string;
  /** For how many days events are kept. */
  total_days: number;
  /** The version of LoggerHub that answers. */
  version: string;
};
/** A key, without its secret. */
export type MyKey = {
  /** When it ends, if it was replaced by another. */
  expires_at: string | null;
  /** Its public id. */
  id: string;
  /** Its name in the Tenant. */
  name: string;
  /** What it may do. */
  scopes: Array<Scope>;
};
/** A tenant's quotas. */
export type MyQuotas = {
  /** Bytes a second. */
  bytes_per_second: number | null;
  /** Events a second. */
  events_per_second: number | null;
};
/** What a notice says. */
export type NoticeCode = "tail_interrupted" | "tail_resumed" | "history_cut";
/** What was purged. */
export type Purged = {
  /** Whether more may match: ask again. */
  more: boolean;
  /** How many letters. */
  purged: number;
};
/** What was wrong. */
export type Reason = {
  /** Stable, for programs. */
  code: string;
  /** Of a query: how many bytes of it. */
  length?: number | null;
  /** What was wrong, where, and what to do, for people. */
  message: string;
  /** Of a query: where it can't be understood, in bytes. */
  position?: number | null;
  /** Of a query: whole queries that may be meant instead, the likeliest first. */
  repairs?: Array<string>;
};
/** Which dead letters are tried again: the body of `POST /api/dead-letters/redrive`. */
export type Redrive = {
  ids: Array<string>;
} | {
  filter: LetterFilter;
} | {
  all: true;
};
/** Why a request was refused. */
export type Refusal = {
  /** What was wrong. */
  error: Reason;
};
/** A batch that came under an `Idempotency-Key` after another: with another body, so that it is dead letters, or after the key's window, so that it is events. */
export type Resend = {
  /** When it was accepted. */
  accepted_at: string;
  /** Its own id. */
  batch_id: string;
  /** Lines of it that are dead letters. */
  dead_letters: number | null;
  /** Events in it. */
  events: number;
};
/** A field and its values, one of which each neighbour has. */
export type Same = {
  /** The field. */
  field: string;
  /** Its values in the event: one, unless the field is a list. */
  values: Array<string>;
};
/** A sample of events, each as likely as any other. */
export type Sampled = {
  /** Of how many. */
  of: number;
  /** How many were looked at. */
  used: number;
};
/** What was read of the raw lines for a page. */
export type Scanned = {
  /** Bytes of their lines, as they were sent. */
  bytes: number;
  /** Events that were looked at. */
  events: number;
  /** How far lines were read, where the time that a request has did not suffice: the next page goes on there. */
  until?: string | null;
};
/** What a key may do. */
export type Scope = "Ingest" | "Query" | "Admin";
/** An event as it is sent. Any JSON object is one; these fields mean something, and all others are kept as `attributes`. */
export type Sent = {
  /** The application that the service belongs to. Also `app`. */
  application?: unknown;
  /** The whole text, where the message is only its beginning. */
  full_log?: unknown;
  /** Programming or human language. */
  language?: unknown;
  /** `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR`, `FATAL`, in whatever case, or another word. Also `severity`, `lvl`. */
  level?: unknown;
  /** The message. Also `msg`, `log`. */
  message?: unknown;
  /** What sends it. Also `source`. */
  service?: unknown;
  /** When it happened: RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970. Of what is absent or unusable, the time of acceptance takes the place. Also `@timestamp`, `time`, `ts`. */
  timestamp?: unknown;
};
/** Lines over time. */
export type Series = {
  /** The field whose values the lines stand for. */
  by: string | null;
  /** Whether every event that matches was looked at. */
  complete: boolean;
  /** Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is. */
  exact: boolean;
  /** The time of one point, in milliseconds. */
  interval_ms: number;
  /** `series`. */
  kind: SeriesKind;
  /** Whether there are more values than lines. */
  more: boolean;
  /** Why it is not complete. */
  notice?: string | null;
  /** Events that are in no line, point by point; of counts by a field alone. */
  other?: Array<number> | null;
  /** By how many events it was estimated. */
  sampled?: Sampled | null;
  /** The lines, those with most events first. All have the same points. */
  series: Array<Line>;
  /** Where it comes from. */
  source: Source;
  /** When the first point's time begins. */
  start: string;
  /** How long it took, in milliseconds. */
  took_ms: number;
  /** How many events match. */
  total: number;
  /** What each point is: a function such as `count` or `p95(latency_ms)`. */
  value: string;
};
/** `series`. */
export type SeriesKind = "series";
/** Where an answer comes from. */
export type Source = "catalog" | "index" | "index+scan" | "scan" | "spool" | "archive" | "queue";
/** What was exported. */
export type Summary = {
  /** Whether these, and those before the cursor that was sent, are all that match. */
  complete: boolean;
  /** How many events. */
  events: number;
  /** What to send as `cursor` to go on; null if there is no more. */
  next_cursor: string | null;
  /** Why it is not complete. */
  notice?: string | null;
};
/** A table. */
export type Table = {
  /** Its columns: first the fields of `by`, then what is computed. */
  columns: Array<Column>;
  /** Whether every event that matches was looked at. */
  complete: boolean;
  /** Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is. */
  exact: boolean;
  /** `table`. */
  kind: TableKind;
  /** Of `| top` and `| rare`: how many of them lack the field. They are in no row and not in `other`; null where that is not known, and they are in `other`. */
  missing: number | null;
  /** Whether there are more groups than rows. */
  more: boolean;
  /** Why it is not complete. */
  notice?: string | null;
  /** How many of them are in no row. */
  other: number;
  /** Its rows, those with most events first; of `| rare`, those with fewest. */
  rows: Array<Array<Cell>>;
  /** By how many events it was estimated. */
  sampled?: Sampled | null;
  /** Where it comes from. */
  source: Source;
  /** How long it took, in milliseconds. */
  took_ms: number;
  /** How many events match. */
  total: number;
};
/** `table`. */
export type TableKind = "table";
/** An event as it was just stored: `raw_path` is null and `indexed` false, for neither is known yet. */
export type TailEvent = {
  /** When it was accepted. */
  accepted_at: string;
  /** The application that the service belongs to. */
  application: string | null;
  /** Fields that LoggerHub has no name for. */
  attributes: Record<string, unknown> | null;
  /** The request that brought it. */
  batch_id: string;
  /** Remarks: `time_of_acceptance`. */
  flags: Array<string>;
  /** The whole text, where it is more than the message. */
  full_log: string | null;
  /** The event's id. */
  id: string;
  /** Whether full-text search can find it. */
  indexed: boolean;
  /** Programming or human language. */
  language: string | null;
  /** Its level. */
  level: string;
  /** The first 500 characters of its message. */
  message: string;
  /** What the client sent as `metadata`. */
  metadata: Record<string, unknown> | null;
  /** Where its raw bytes are. */
  raw_path: string | null;
  /** What sent it. */
  service: string;
  /** Whose it is. */
  tenant: string;
  /** When it happened. */
  timestamp: string;
};
/** A piece of a query. */
export type Token = {
  /** What it is. */
  kind: TokenKind;
  /** How many bytes it has. */
  length: number;
  /** Where it begins, in bytes of the query. */
  position: number;
};
/** What a piece of a query is. */
export type TokenKind = "operator" | "parenthesis" | "field" | "value" | "word" | "phrase" | "signs" | "stage";
/** What a tenant stored within a time of acceptance. */
export type Usage = {
  /** What it is summed up by. */
  by: "hour" | "day" | "key" | "service";
  /** Whether everything that was accepted within the time is counted. */
  complete: boolean;
  /** From when on, by the time of acceptance. */
  from: string;
  /** Why it is not complete. */
  notice?: string | null;
  /** One for each hour, day, key or service that has any; by time, or the largest first. */
  rows: Array<UsageRow>;
  /** Where this answer comes from. */
  source: Source;
  /** Whose usage. */
  tenant: string;
  /** Before when. */
  to: string;
  /** All rows together. */
  total: Amount;
};
/** The usage of one hour, day, key or service. */
export type UsageRow = {
  /** Bytes of their lines as they are stored, before compression. */
  bytes: number;
  /** Events. */
  events: number;
  /** The key's name, if the key is still the tenant's. */
  name?: string | null;
  /** The beginning of the hour or day, the key's id, or the service. */
  value: string;
};
/** A value, and how many events have it. */
export type ValueCount = {
  /** How many. */
  count: number;
  /** The value; null stands for events without one. */
  value: string | null;
};
/** The values of one field. */
export type Values = {
  /** Whether every event that matches was looked at. */
  complete: boolean;
  /** Whether its numbers are exact for what it looked at. Else they are estimated, or which groups are shown is. */
  exact: boolean;
  /** The field. */
  field: string;
  /** Whether there are more values than these. */
  more: boolean;
  /** Why it is not complete. */
  notice?: string | null;
  /** Events with other values. */
  other: number;
  /** By how many events it was estimated. */
  sampled?: Sampled | null;
  /** Where it comes from. */
  source: Source;
  /** How long it took, in milliseconds. */
  took_ms: number;
  /** How many events match. */
  total: number;
  /** Those that most events have. */
  values: Array<ValueCount>;
};
/** One dead letter with its original bytes. */
export type WholeLetter = {
  /** When it was accepted. */
  accepted_at: string | null;
  /** How often it was tried. */
  attempts: number;
  /** The request that brought it; null for what could not be read at all. */
  batch_id: string | null;
  /** Why it is no event, for programs. */
  code: string;
  /** Whether all of them are shown. */
  complete: boolean;
  /** When it was put among the dead letters. */
  created_at: string;
  /** What `raw` is. */
  encoding: Encoding | null;
  /** The id that its event would have, and will have once it is redriven. */
  id: string;
  /** Why not. */
  notice?: string | null;
  /** The pipeline that it failed in. */
  pipeline: string;
  /** That pipeline's generation. */
  pipeline_generation: number;
  /** The original bytes, at most 1 MiB of them. */
  raw: string | null;
  /** How many original bytes there are. */
  raw_bytes: number;
  /** Where they are. */
  raw_path: string | null;
  /** Why, for people. Not `error`, which is what a refusal has. */
  reason: string;
  /** Whether it can be tried again. */
  redrivable: boolean;
  /** Since when it waits to be tried again. */
  redrive_requested_at: string | null;
  /** When it was tried last, if more than once. */
  retried_at: string | null;
  /** Where the bytes come from. */
  source: Source;
};

/** The codes of refusals: their status, and whether to send the same request again. */
export const codes = {
  /** send a key */
  missing_api_key: { status: 401, again: "no" },
  /** send one key: two different ones came */
  several_api_keys: { status: 400, again: "no" },
  /** unknown, wrong, revoked or expired, or of a tenant that leaves: get another */
  invalid_api_key: { status: 401, again: "no" },
  /** use a key with the scope that the message names */
  scope_missing: { status: 403, again: "no" },
  /** leave the tenant's name out */
  tenant_mismatch: { status: 403, again: "no" },
  /** nothing is accepted; reading works */
  tenant_suspended: { status: 403, again: "no" },
  /** send at least one event */
  empty_batch: { status: 400, again: "no" },
  /** the message names the event and the byte */
  invalid_json: { status: 400, again: "no" },
  /** nest less */
  too_deep: { status: 400, again: "no" },
  /** shorten the event that the message names */
  event_too_large: { status: 413, again: "no" },
  /** send several bodies */
  too_many_events: { status: 413, again: "no" },
  /** send several bodies */
  body_too_large: { status: 413, again: "no" },
  /** send several bodies */
  decompressed_too_large: { status: 413, again: "no" },
  /** the body did not come within 30 s, behind the gateway too (700 KiB/s for one of 20 MiB): send less at once */
  body_timeout: { status: 408, again: "yes" },
  /** the body ended early: send it again */
  body_incomplete: { status: 400, again: "yes" },
  /** the body ended early, before the gateway had passed it on: send it again */
  incomplete_body: { status: 400, again: "yes" },
  /** one of gzip, zstd, identity */
  unsupported_encoding: { status: 415, again: "no" },
  /** `application/json` or `application/x-ndjson` */
  unsupported_content_type: { status: 415, again: "no" },
  /** one key of 1 to 255 visible ASCII characters */
  invalid_idempotency_key: { status: 400, again: "no" },
  /** another body has the key: send this one under another */
  idempotency_key_reused: { status: 422, again: "no" },
  /** send again after `Retry-After` */
  queue_full: { status: 503, again: "after Retry-After" },
  /** slow down: send again after `Retry-After`; `RateLimit` says what is left */
  quota_exceeded: { status: 429, again: "after Retry-After" },
  /** send again; the events may have been kept, so use an `Idempotency-Key` */
  queue_unavailable: { status: 503, again: "after Retry-After" },
  /** send or ask again after `Retry-After` */
  overloaded: { status: 503, again: "after Retry-After" },
  /** the message names it */
  invalid_parameter: { status: 400, again: "no" },
  /** begin again without it: it is of another route, other filters, or an earlier version */
  invalid_cursor: { status: 400, again: "no" },
  /** `position` and `length` say where, `repairs` what may be meant */
  invalid_query: { status: 400, again: "no" },
  /** put more letters before the `*` */
  query_too_broad: { status: 400, again: "no" },
  /** ask less at once, or for less; again after `Retry-After` */
  too_many_queries: { status: 429, again: "after Retry-After" },
  /** leave it out, or send the one of the batch's 202 */
  invalid_receipt: { status: 400, again: "no" },
  /** there is no such thing, or it is not yours */
  not_found: { status: 404, again: "no" },
  /** the batch is older than what is kept */
  expired: { status: 410, again: "no" },
  /** read it, purge it */
  not_redrivable: { status: 409, again: "no" },
  /** the message says which header is wrong; the connection is closed */
  invalid_request: { status: 400, again: "no" },
  /** see `GET /` */
  method_not_allowed: { status: 405, again: "no" },
  /** narrow the time range */
  query_timeout: { status: 503, again: "no" },
  /** try again */
  store_unavailable: { status: 503, again: "after Retry-After" },
  /** the tenant's tables are being brought to this version: try again in some minutes */
  schema_upgrading: { status: 503, again: "after Retry-After" },
  /** the request is no WebSocket handshake */
  invalid_upgrade: { status: 400, again: "no" },
  /** close one */
  too_many_tails: { status: 429, again: "after Retry-After" },
  /** try again */
  upstream_unavailable: { status: 503, again: "after Retry-After" },
  /** whether the request took effect is not known */
  upstream_failed: { status: 502, again: "yes" },
  /** try again later */
  upstream_timeout: { status: 504, again: "yes" },
  /** a defect; it was logged */
  internal: { status: 500, again: "no" },
} as const;
export type Code = keyof typeof codes;

/** The parameters in the URL, by route. */
export interface Parameters {
  /** sends events: 202 once they are kept */
  "POST /logs": {
    /** Whether the first bad event refuses the whole body. Else the good ones are kept. */
    atomic?: boolean;
  };
  /** the same as `POST /logs` */
  "POST /data/fast": {
    /** Whether the first bad event refuses the whole body. Else the good ones are kept. */
    atomic?: boolean;
  };
  /** sends events: 201 once they are stored, or 202 after 10 s */
  "POST /data/": {
    /** Whether the first bad event refuses the whole body. Else the good ones are kept. */
    atomic?: boolean;
  };
  /** the same as `POST /data/` */
  "POST /data": {
    /** Whether the first bad event refuses the whole body. Else the good ones are kept. */
    atomic?: boolean;
  };
  /** events, newest first or oldest first */
  "GET /api/logs": {
    /** `next_cursor` of the previous page. It is valid for the same route and parameters only; the times and `limit` may change. */
    cursor?: string;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** 1 to 500; 50 by default. */
    limit?: number;
    /** `newest` first, or `oldest`. A cursor is valid in its own order only. */
    order?: "newest" | "oldest";
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A text in the first 500 characters of the message. */
    text?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** one event, whole */
  "GET /api/logs/{id}": {
    /** The id; what is no id names nothing. */
    id: string;
  };
  /** one event between its neighbours */
  "GET /api/logs/{id}/context": {
    /** The id; what is no id names nothing. */
    id: string;
    /** How many events after it: 0 to 250; 25 by default. */
    after?: number;
    /** How many events before it: 0 to 250; 25 by default. */
    before?: number;
    /** `earlier_cursor` or `later_cursor` of an answer about the same event: goes on in that direction alone. */
    cursor?: string;
    /** What they have in common with it: `service` by default, `application`, any field such as `metadata.pod`, or `none`. */
    same?: string;
  };
  /** events that match a query, newest first or oldest first */
  "GET /api/search": {
    /** `next_cursor` of the previous page. It is valid for the same route and parameters only; the times and `limit` may change. */
    cursor?: string;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** 1 to 500; 50 by default. */
    limit?: number;
    /** `newest` first, or `oldest`. A cursor is valid in its own order only. */
    order?: "newest" | "oldest";
    /** The query: `word`, `"a phrase"`, `-not`, `OR`, `( )`, `prefix*`, `field:value`, `level:>=warn`, `status:500..599`; see docs/query-language.md. */
    q: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** whole events, up to a million, as NDJSON, CSV or text */
  "GET /api/export": {
    /** The id of the last event that came of an export that broke off: goes on after it. Not beside `cursor`. */
    after?: string;
    /** `next_cursor` of the last line of an export of the same events. */
    cursor?: string;
    /** `ndjson`, `csv` or `text`; `ndjson` by default. */
    format?: "ndjson" | "csv" | "text";
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** 1 to 1000000, which is also what it is by default. */
    limit?: number;
    /** `newest` first, or `oldest`. A cursor is valid in its own order only. */
    order?: "newest" | "oldest";
    /** The query; without it every event. See docs/query-language.md. */
    q?: string;
    /** `true` leaves the cells of a CSV as they are, also those that a spreadsheet would take for a formula. */
    raw?: boolean;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** what was understood of a query; nothing is searched */
  "GET /api/explain": {
    /** The query. */
    q: string;
  };
  /** what the stages of a query make of events: events, a table or a chart */
  "GET /api/query": {
    /** `next_cursor` of the previous page. It is valid for the same route and parameters only; the times and `limit` may change. */
    cursor?: string;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** 1 to 500; 50 by default. */
    limit?: number;
    /** `newest` first, or `oldest`. A cursor is valid in its own order only. */
    order?: "newest" | "oldest";
    /** A query and its stages: `level:error | count by service`, `| timechart 5m count by level`, `| stats p95(latency_ms) by service`; see docs/query-language.md. */
    q: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** how many events match a query, over time and by level */
  "GET /api/histogram": {
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** The time of one bar: `30s`, `5m`, `2h`, `1d`. Without it, one that suits the range. At most 1,000 bars. */
    interval?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** A query, of which the part before the first `|` counts; without it, every event. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** the values of service, level, application and language, counted */
  "GET /api/facets": {
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** A query, of which the part before the first `|` counts; without it, every event. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** the fields that events have, by a sample */
  "GET /api/fields": {
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** A query, of which the part before the first `|` counts; without it, every event. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** the values of one field, counted */
  "GET /api/fields/{name}/values": {
    /** A field's name, as it is typed in a query. */
    name: string;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** Most values, 1 to 100; 20 by default. */
    limit?: number;
    /** What the values begin with. */
    prefix?: string;
    /** A query, of which the part before the first `|` counts; without it, every event. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** what a query may go on with at the cursor */
  "GET /api/complete": {
    /** Where the cursor stands, in bytes of it; without it, at the end. */
    at?: number;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** The query as it is so far. It may be unfinished. */
    q: string;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** how far a batch has come */
  "GET /api/batches/{id}": {
    /** The id; what is no id names nothing. */
    id: string;
    /** The receipt in the batch's 202. With it, a batch that is not stored yet is found, and a key that may only send can ask. */
    receipt?: string;
  };
  /** what the tenant sent, by hour, day, key or service */
  "GET /api/usage": {
    /** What to sum up by; `day` by default. */
    by?: "hour" | "day" | "key" | "service" | null;
    /** JSON by default. */
    format?: "json" | "csv" | null;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** lines that could not be events, newest first */
  "GET /api/dead-letters": {
    /** A batch's id. */
    batch?: string;
    /** One or more codes: `a,b`, or the parameter several times. */
    code?: Array<string>;
    /** `next_cursor` of the previous page. It is valid for the same route and parameters only; the times and `limit` may change. */
    cursor?: string;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** 1 to 500; 50 by default. */
    limit?: number;
    /** One or more pipelines: `a,b`, or the parameter several times. */
    pipeline?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** one of them with its original bytes */
  "GET /api/dead-letters/{id}": {
    /** The id; what is no id names nothing. */
    id: string;
  };
  /** 202: this one is tried again */
  "POST /api/dead-letters/{id}/redrive": {
    /** The id; what is no id names nothing. */
    id: string;
  };
  /** purges those that match */
  "DELETE /api/dead-letters": {
    /** All of them; needed unless there is a filter. */
    all?: true;
    /** A batch's id. */
    batch?: string;
    /** One or more codes: `a,b`, or the parameter several times. */
    code?: Array<string>;
    /** A time, inclusive: `2026-01-31T12:00:00Z`, `2026-01-31`, `15m` (ago), `now-1d/d`, `today`, seconds, ms, µs or ns since 1970. */
    from?: string;
    /** One or more pipelines: `a,b`, or the parameter several times. */
    pipeline?: Array<string>;
    /** The same as `from`; only one of them. */
    since?: string;
    /** A time, exclusive, in the forms of `from`. A day ends with the day. */
    to?: string;
  };
  /** purges one */
  "DELETE /api/dead-letters/{id}": {
    /** The id; what is no id names nothing. */
    id: string;
  };
  /** a WebSocket: events as they are stored */
  "GET /ws/logs": {
    /** The id of an event: what was stored after it is shown first. `GET /api/tail` also takes it as `Last-Event-ID`. */
    after?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** The query; without it every event. See docs/query-language.md. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
  };
  /** the same as server-sent events, for `curl -N` */
  "GET /api/tail": {
    /** The id of an event: what was stored after it is shown first. `GET /api/tail` also takes it as `Last-Event-ID`. */
    after?: string;
    /** One or more levels, in any case: `a,b`, or the parameter several times. */
    level?: Array<string>;
    /** The query; without it every event. See docs/query-language.md. */
    q?: string;
    /** One or more services: `a,b`, or the parameter several times. */
    service?: Array<string>;
  };
}

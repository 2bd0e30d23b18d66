/**
 * What travels between clients and the server. Written by `python -m http_api.pages.wire_js`, from `models/wire.py`,
 * `models/rest.py`, `models/currencies.py` and `http_api/sockets/close_codes.py`: change those and never this file.
 *
 * Unknown members are to be ignored: a newer server may say more than is written here.
 */

// ---- words ----

/** @typedef {"mechanic" | "customer" | "time" | "operator"} CompletedBy */

/** @typedef {"declined" | "expired" | "skipped"} FallbackReason */

/** @typedef {"priority" | "broadcast"} OfferKind */

/** @typedef {"pending" | "succeeded" | "failed"} RefundStatus */

/**
 * @typedef {"priority_offered"
 *   | "broadcasting"
 *   | "accepted"
 *   | "in_progress"
 *   | "completed"
 *   | "unfilled"
 *   | "cancelled"} RequestStatus
 */

/** @typedef {"priority_broadcast" | "broadcast"} RoutingType */

/** @typedef {"diagnostic" | "text" | "video"} SessionType */

/** @typedef {"taken" | "expired" | "cancelled" | "skipped" | "declined"} WithdrawReason */

/** RFC 3339 UTC @typedef {string} Timestamp */

/** @typedef {"available" | "busy" | "off_duty" | "offline"} Availability */

/** @typedef {"socket" | "push" | "none"} Reachable */

/** @typedef {"open" | "paid" | "expired" | "failed"} CheckoutStatus */

/** @typedef {"independent" | "workshop"} ProviderType */

/** @typedef {"owed" | "held" | "on_its_way" | "failed"} RefundProgress */

/** @typedef {"customer" | "mechanic" | "admin"} Role */

/** @typedef {"completed" | "unfilled"} Settlement */

/**
 * @typedef {"accepted"
 *   | "declined"
 *   | "missed"
 *   | "taken"
 *   | "cancelled"
 *   | "skipped"
 *   | "given_back"
 *   | "no_show"
 *   | "find_another"} PastOfferOutcome
 */

// ---- objects and messages of the sockets ----

/**
 * A mechanic as others see them.
 * @typedef {object} Person
 * @property {string} id
 * @property {string} name
 */

/**
 * The open offer of a request, as its customer sees it.
 * @typedef {object} OfferDeadline
 * @property {string} id
 * @property {OfferKind} kind
 * @property {Timestamp} expires_at
 * @property {number} expires_in_ms
 * @property {boolean} [preferred_is_busy]
 */

/**
 * Until when something has to have happened.
 * @typedef {object} Deadline
 * @property {Timestamp} expires_at
 * @property {number} expires_in_ms
 */

/**
 * Where the money is on its way back.
 * @typedef {object} RefundState
 * @property {RefundStatus} status
 * @property {number} amount_cents
 * @property {string} [currency]
 */

/**
 * A line of a request's story; what it says besides depends on `event`.
 * @typedef {object} TimelineEntryView
 * @property {Timestamp} at
 * @property {string} event
 * @property {string} [mechanic_id]
 * @property {string} [mechanic_name]
 * @property {string} [reason]
 * @property {number} [amount_cents]
 * @property {string} [cause]
 * @property {CompletedBy} [by]
 * @property {number} [lasted_s]
 */

/**
 * A session request. `version` only grows: an older one never overwrites a newer.
 *
 * `note` is what the customer wrote about it. `price_cents` is the price of what was bought, whatever was paid of it.
 * `favorite_prompt`: it is completed, and its mechanic not yet a favourite of the customer's.
 *
 * `start`: while it is accepted, until when the mechanic must start; `ends`: while it is in progress, when it ends by itself.
 * `assigned_is_online`: whether the mechanic is there, while it is one of the two; `null` also when nobody knows just now.
 * `join_url`: where the session takes place, for whoever is shown this; only then. Only what a node of an earlier version has
 * told lacks the last members.
 *
 * `refund`: what of the payment goes back, or has gone back, in all, whoever has moved it. `disputed`: the customer's bank has
 * asked for the money (also when that is over).
 * @typedef {object} RequestView
 * @property {string} id
 * @property {number} version
 * @property {string} plan
 * @property {string} session_type
 * @property {RoutingType} routing_type
 * @property {RequestStatus} status
 * @property {string} customer_name
 * @property {Person | null} preferred_mechanic
 * @property {Person | null} assigned_mechanic
 * @property {OfferDeadline | null} offer
 * @property {FallbackReason | null} fallback_reason
 * @property {Timestamp} created_at
 * @property {Timestamp | null} accepted_at
 * @property {Timestamp | null} completed_at
 * @property {RefundState | null} refund
 * @property {TimelineEntryView[]} timeline
 * @property {string | null} [note]
 * @property {number} [price_cents]
 * @property {string} [currency]
 * @property {boolean} [favorite_prompt]
 * @property {Deadline | null} [start]
 * @property {Deadline | null} [ends]
 * @property {boolean | null} [assigned_is_online]
 * @property {string | null} [join_url]
 * @property {boolean} [disputed]
 */

/**
 * An offer as the mechanic sees it; `offer_id` is the key, it may arrive more than once.
 *
 * `note` is what the customer wrote about it; `price_cents` the price of what they bought. Only what a node of an earlier
 * version has told lacks the price.
 * @typedef {object} OfferView
 * @property {string} offer_id
 * @property {string} request_id
 * @property {OfferKind} kind
 * @property {string} customer_name
 * @property {string} plan
 * @property {string} session_type
 * @property {number} duration_min
 * @property {Timestamp} expires_at
 * @property {number} expires_in_ms
 * @property {string | null} [note]
 * @property {number} [price_cents]
 * @property {string} [currency]
 */

/**
 * How a mechanic usually answers their priority `offers` of the last 90 days: how many of them they accepted, and the median
 * time to an answer (`null` if they answered none).
 * @typedef {object} ResponseView
 * @property {number} accept_percent
 * @property {number | null} answers_within_s
 * @property {number} offers
 */

/**
 * What is true of a mechanic at `as_of`. `last_seen` is `null` if never seen; `session_types`: what they take.
 *
 * `response` is `null` while too few offers tell how they answer.
 * @typedef {object} StatusView
 * @property {string} mechanic_id
 * @property {boolean} is_online
 * @property {Timestamp | null} last_seen
 * @property {Availability} availability
 * @property {Reachable} reachable
 * @property {SessionType[]} session_types
 * @property {Timestamp} as_of
 * @property {number} version
 * @property {ResponseView | null} [response]
 */

/**
 * I am here. Any other frame and the pong to the server's ping say so, too.
 * @typedef {object} Heartbeat
 * @property {"heartbeat"} type
 */

/**
 * Go on or off duty; remembered across connections and restarts. What was planned before is off with it.
 *
 * `back_in_s`: a break, off duty now and on duty again by itself then. `off_after_session`: on duty until the session they are
 * in ends. Errors: `invalid_availability` (the message says what does not fit), `not_in_session` (there is none to wait for).
 * @typedef {object} SetAvailability
 * @property {"set_availability"} type
 * @property {boolean} on_duty
 * @property {number | null} [back_in_s]
 * @property {boolean} [off_after_session]
 */

/**
 * The offer reached the app; it need not be sent again. `seen`: a person could see it, on a screen that was on.
 * @typedef {object} OfferAck
 * @property {"offer_ack"} type
 * @property {string} offer_id
 * @property {boolean} [seen]
 */

/**
 * Take the request that this offer is for.
 * @typedef {object} Accept
 * @property {"accept"} type
 * @property {string} offer_id
 */

/**
 * Do not offer this request to me again.
 * @typedef {object} Decline
 * @property {"decline"} type
 * @property {string} offer_id
 * @property {string | null} [reason]
 */

/**
 * The snapshot after every (re)connect.
 *
 * Whoever sends nothing for `presence_timeout_s` counts as gone; `disconnect_grace_s` is how long a lost socket is kept quiet.
 * The last three: see `AvailabilityChanged`.
 * @typedef {object} MechanicWelcome
 * @property {"welcome"} type
 * @property {number} protocol
 * @property {string} mechanic_id
 * @property {string} connection_id
 * @property {Timestamp} server_time
 * @property {number} heartbeat_interval_s
 * @property {number} presence_timeout_s
 * @property {number} disconnect_grace_s
 * @property {boolean} on_duty
 * @property {OfferView[]} offers
 * @property {RequestView | null} request
 * @property {Timestamp} [back_at]
 * @property {number} [back_in_ms]
 * @property {boolean} [off_after_session]
 */

/**
 * @typedef {object} HeartbeatAck
 * @property {"heartbeat_ack"} type
 * @property {Timestamp} server_time
 */

/**
 * The answer to `set_availability`, and what is sent whenever this changes otherwise.
 *
 * `back_at` and `back_in_ms`: when a break ends; `off_after_session`: they go off duty with the session they are in. Each is
 * there only while it is so.
 * @typedef {object} AvailabilityChanged
 * @property {"availability"} type
 * @property {boolean} on_duty
 * @property {Availability} availability
 * @property {Timestamp} [back_at]
 * @property {number} [back_in_ms]
 * @property {boolean} [off_after_session]
 */

/**
 * Sent again every five seconds until acknowledged, while it is open.
 * @typedef {object} OfferMade
 * @property {"offer"} type
 * @property {OfferView} offer
 */

/**
 * You have it.
 * @typedef {object} OfferAccepted
 * @property {"offer_accepted"} type
 * @property {string} offer_id
 * @property {RequestView} request
 */

/**
 * The offer is no longer open to you. `declined`: you said no to it, or have switched off sessions of its kind.
 *
 * `by_you`: you have taken or declined it, on another device.
 * @typedef {object} OfferWithdrawn
 * @property {"offer_withdrawn"} type
 * @property {string} offer_id
 * @property {WithdrawReason} reason
 * @property {boolean} [by_you]
 */

/**
 * A request of yours has changed.
 * @typedef {object} RequestUpdate
 * @property {"request_update"} type
 * @property {RequestView} request
 */

/**
 * Something you sent was not done; `ref` is the id it was about.
 * @typedef {object} ErrorMessage
 * @property {"error"} type
 * @property {string} code
 * @property {string} message
 * @property {string} [ref]
 */

/**
 * Tell me about these mechanics: now, and at every change. Adds to what is watched.
 * @typedef {object} Watch
 * @property {"watch"} type
 * @property {string[]} mechanic_ids
 */

/**
 * No longer about these.
 * @typedef {object} Unwatch
 * @property {"unwatch"} type
 * @property {string[]} mechanic_ids
 */

/**
 * The snapshot after every (re)connect; `requests` are the open ones, the two times as in the mechanic's.
 * @typedef {object} CustomerWelcome
 * @property {"welcome"} type
 * @property {number} protocol
 * @property {string} account_id
 * @property {Timestamp} server_time
 * @property {number} heartbeat_interval_s
 * @property {number} presence_timeout_s
 * @property {number} disconnect_grace_s
 * @property {RequestView[]} requests
 */

/**
 * `StatusView` as a message: the current one after `watch`, then every change.
 * @typedef {object} StatusChanged
 * @property {"status"} type
 * @property {string} mechanic_id
 * @property {boolean} is_online
 * @property {Timestamp | null} last_seen
 * @property {Availability} availability
 * @property {Reachable} reachable
 * @property {SessionType[]} session_types
 * @property {Timestamp} as_of
 * @property {number} version
 * @property {ResponseView | null} [response]
 */

/**
 * The answer to a `watch` of several: all that is known at once, in one message. A change after that is a `status`.
 * @typedef {object} StatusesKnown
 * @property {"statuses"} type
 * @property {StatusView[]} statuses
 */

/**
 * The session is completed and the mechanic not yet a favourite: would you like them to be?
 * @typedef {object} FavoritePrompt
 * @property {"favorite_prompt"} type
 * @property {string} request_id
 * @property {Person} mechanic
 */

/**
 * By push alone: somebody wanted to see whether it arrives.
 * @typedef {object} PushTest
 * @property {"test"} type
 */

/** @typedef {Heartbeat | SetAvailability | OfferAck | Accept | Decline} MechanicMessage */

/**
 * @typedef {MechanicWelcome
 *   | HeartbeatAck
 *   | AvailabilityChanged
 *   | OfferMade
 *   | OfferAccepted
 *   | OfferWithdrawn
 *   | RequestUpdate
 *   | ErrorMessage} ToMechanic
 */

/** @typedef {Heartbeat | Watch | Unwatch} CustomerMessage */

/**
 * @typedef {CustomerWelcome
 *   | HeartbeatAck
 *   | StatusChanged
 *   | StatusesKnown
 *   | RequestUpdate
 *   | FavoritePrompt
 *   | ErrorMessage} ToCustomer
 */

/**
 * What travels on each socket, by its path.
 * @typedef {{
 *   "/ws/mechanic": {to_server: MechanicMessage, to_client: ToMechanic},
 *   "/ws/customer": {to_server: CustomerMessage, to_client: ToCustomer},
 * }} Channels
 */

/** How many mechanics one socket may watch. */
export const WATCH_MAX = 100;

// ---- why a socket was closed ----

/**
 * What to do after a close.
 * - `reconnect`: reconnect with jittered back-off
 * - `reconnect_spread`: reconnect with jittered back-off, the first try within seconds: all were sent away together
 * - `reconnect_slowly`: reconnect after a long, jittered back-off: hurrying back would only repeat it
 * - `sign_in`: sign in again, then reconnect
 * - `fix`: mend the client: the same frame would be refused again; until then reconnect only after a long, jittered back-off
 * @typedef {"reconnect" | "reconnect_spread" | "reconnect_slowly" | "sign_in" | "fix"} Then
 */

/**
 * What to do after a close, by its code.
 * @type {Readonly<Record<number, Then>>}
 */
export const CLOSE_CODES = {
  /** a frame broke RFC 6455 */
  1002: "fix",
  /** a binary frame; messages are JSON in text frames */
  1003: "fix",
  /** a text frame that is not UTF-8 */
  1007: "fix",
  /** too many frames, or too many things in hand */
  1008: "reconnect_slowly",
  /** a message longer than 16 KiB */
  1009: "fix",
  /** something went wrong on our side */
  1011: "reconnect",
  /** the server drains: it is about to restart */
  1012: "reconnect_spread",
  /** the snapshot could not be read; the database or Redis does not answer */
  1013: "reconnect",
  /** the token has expired or was revoked */
  4401: "sign_in",
  /** nothing was heard for the presence time-out */
  4408: "reconnect",
};

// ---- amounts of money ----

/** How many decimals the amounts of most currencies have. */
export const DECIMALS_USUAL = 2;
/**
 * How many they have of the others, by the code (docs.stripe.com/currencies, as of charges).
 * @type {Readonly<Record<string, number>>}
 */
export const DECIMALS = {
  bif: 0,
  clp: 0,
  djf: 0,
  gnf: 0,
  jpy: 0,
  kmf: 0,
  krw: 0,
  mga: 0,
  pyg: 0,
  rwf: 0,
  vnd: 0,
  vuv: 0,
  xaf: 0,
  xof: 0,
  xpf: 0,
  bhd: 3,
  jod: 3,
  kwd: 3,
  omr: 3,
  tnd: 3,
};
/** Counted in hundredths, and written without: these have only whole ones. @type {readonly string[]} */
export const WHOLE = ["isk", "ugx"];

// ---- bodies and answers of REST ----

/**
 * @typedef {object} RegisterBody
 * @property {string} email
 * @property {string} password
 * @property {string} name
 */

/**
 * @typedef {object} LoginBody
 * @property {string} email
 * @property {string} password
 */

/**
 * `everywhere`: on all devices, and not on this one alone.
 * @typedef {object} LogoutBody
 * @property {boolean} [everywhere]
 */

/**
 * @typedef {object} PasswordBody
 * @property {string} current_password
 * @property {string} new_password
 */

/**
 * @typedef {object} ForgotBody
 * @property {string} email
 */

/**
 * `reset_token`: what stands behind the `#` of the link in the mail.
 * @typedef {object} ResetBody
 * @property {string} reset_token
 * @property {string} new_password
 */

/**
 * @typedef {object} EraseBody
 * @property {string} current_password
 */

/**
 * @typedef {object} NameBody
 * @property {string} name
 */

/**
 * `note`: what it is about, such as the car and its trouble. Mechanics read it before they accept.
 * @typedef {object} CheckoutBody
 * @property {string} plan
 * @property {RoutingType} routing_type
 * @property {string | null} [preferred_mechanic_id]
 * @property {string | null} [note]
 */

/**
 * @typedef {object} DeclineBody
 * @property {string | null} [reason]
 */

/**
 * `mechanic_id`: whom not to wait for. Without it whoever has the request, who may be somebody else by then.
 * @typedef {object} FindAnotherBody
 * @property {string | null} [mechanic_id]
 */

/**
 * @typedef {object} ReasonBody
 * @property {string} reason
 */

/**
 * As what a request that is stuck is to end.
 * @typedef {object} SettleBody
 * @property {Settlement} as
 */

/**
 * At least one kind of session, each once: whoever wants none goes off duty.
 * @typedef {object} PreferencesBody
 * @property {SessionType[]} session_types
 * @property {boolean} push_broadcasts
 */

/**
 * @typedef {object} PushKeys
 * @property {string} p256dh
 * @property {string} auth
 */

/**
 * What `PushSubscription.toJSON()` gives in a browser, and a `label` to know it by.
 * @typedef {object} PushSubscribeBody
 * @property {string} endpoint
 * @property {PushKeys} keys
 * @property {number | null} [expirationTime]
 * @property {string | null} [label]
 */

/**
 * @typedef {object} PushUnsubscribeBody
 * @property {string} endpoint
 */

/**
 * `endpoint`: of which browser; without it, of all of the account's.
 * @typedef {object} PushTestBody
 * @property {string | null} [endpoint]
 */

/**
 * `has_used_free_session` is there for customers only; of the session only `/api/me` tells.
 *
 * From `session_renew_at` on, half of its life is over and it is worth renewing.
 * @typedef {object} AccountView
 * @property {string} id
 * @property {Role} role
 * @property {string} name
 * @property {string} email
 * @property {boolean} [has_used_free_session]
 * @property {Timestamp} [session_expires_at]
 * @property {Timestamp} [session_renew_at]
 */

/**
 * Where an account is signed in. `user_agent`: what the program there calls itself (RFC 9110 §10.1.5).
 * @typedef {object} DeviceView
 * @property {string} id
 * @property {string | null} user_agent
 * @property {Timestamp} signed_in_at
 * @property {boolean} is_this
 */

/**
 * @typedef {object} Devices
 * @property {DeviceView[]} devices
 */

/**
 * @typedef {object} SignedIn
 * @property {AccountView} account
 * @property {string} token
 * @property {Timestamp} expires_at
 */

/**
 * As after signing in; `token` is there for those who called with one.
 *
 * A browser's stays in its cookie, where no script can read it.
 * @typedef {object} Renewed
 * @property {AccountView} account
 * @property {Timestamp} expires_at
 * @property {string} [token]
 */

/**
 * @typedef {object} Ticket
 * @property {string} ticket
 * @property {number} expires_in_s
 */

/**
 * @typedef {object} Statuses
 * @property {StatusView[]} statuses
 */

/**
 * @typedef {object} AvailableCount
 * @property {number} available_count
 */

/**
 * A favourite, and what they have done for the customer: `services_count` sessions served, the last at `last_service_at`.
 *
 * `total_spent_cents` is what was paid for these and has not gone back, in the currency most used with this mechanic (of two
 * the one used last); payments in others are not in it. Without any, the currency is the one that plans are sold in.
 * @typedef {object} FavoriteView
 * @property {string} provider_id
 * @property {string} provider_name
 * @property {ProviderType} provider_type
 * @property {number} services_count
 * @property {number} total_spent_cents
 * @property {string} currency
 * @property {Timestamp | null} last_service_at
 * @property {StatusView} status
 */

/**
 * @typedef {object} Favorites
 * @property {FavoriteView[]} favorites
 */

/**
 * @typedef {object} FavoriteAdded
 * @property {FavoriteView} favorite
 */

/**
 * @typedef {object} PlanView
 * @property {string} id
 * @property {string} name
 * @property {number} price_cents
 * @property {string} currency
 * @property {number} duration_min
 * @property {string} session_type
 * @property {boolean} first_time_only
 * @property {boolean} eligible
 */

/**
 * @typedef {object} Plans
 * @property {PlanView[]} plans
 */

/**
 * @typedef {object} StripeCheckout
 * @property {string} checkout_id
 * @property {"stripe"} kind
 * @property {string} url
 * @property {Timestamp} expires_at
 */

/**
 * @typedef {object} FreeCheckout
 * @property {string} checkout_id
 * @property {"free"} kind
 * @property {RequestView} request
 */

/**
 * @typedef {object} CheckoutState
 * @property {string} checkout_id
 * @property {CheckoutStatus} status
 * @property {string} [request_id]
 */

/**
 * @typedef {object} RequestAnswer
 * @property {RequestView} request
 */

/**
 * @typedef {object} Requests
 * @property {RequestView[]} requests
 * @property {string | null} next_cursor
 */

/**
 * An offer that is over for a mechanic; `ended_at`: for them, when they answered it, else when it closed.
 * @typedef {object} PastOffer
 * @property {string} offer_id
 * @property {string} request_id
 * @property {OfferKind} kind
 * @property {string} customer_name
 * @property {string} plan
 * @property {string} session_type
 * @property {number} duration_min
 * @property {number} price_cents
 * @property {string} currency
 * @property {Timestamp} offered_at
 * @property {Timestamp} ended_at
 * @property {PastOfferOutcome} outcome
 */

/**
 * @typedef {object} PastOffers
 * @property {PastOffer[]} offers
 * @property {string | null} next_cursor
 */

/**
 * A mechanic's day (UTC). What crosses midnight is cut there, what has not ended yet counts until now.
 *
 * `on_duty_s` is how long their switch was on, with an app connected or not. `earned_cents` is the price of the `sessions`
 * that were completed on that day, whatever their customers paid of it; a session whose payment has gone back in full is counted,
 * and earns nothing. A day with sessions of several currencies has an entry for each; the first of them has the day's hours.
 * @typedef {object} DayHours
 * @property {string} day
 * @property {number} on_duty_s
 * @property {number} in_session_s
 * @property {number} sessions
 * @property {number} earned_cents
 * @property {string} currency
 */

/**
 * @typedef {object} Hours
 * @property {DayHours[]} days
 */

/**
 * @typedef {object} Offers
 * @property {OfferView[]} offers
 */

/**
 * `session_types`: what they take, always in the same order; `push_broadcasts`: whether open requests may wake them.
 * @typedef {object} PreferencesView
 * @property {SessionType[]} session_types
 * @property {boolean} push_broadcasts
 */

/**
 * @typedef {object} PushKey
 * @property {string} public_key
 */

/**
 * @typedef {object} PushSubscribed
 * @property {string} id
 * @property {string} endpoint
 */

/**
 * A browser of the caller's. Its endpoint is a secret of the browser's: `endpoint_hash` is the SHA-256 of it (base64url), by
 * which a page knows its own. `last_used_at`: when its push service last took a message for it.
 * @typedef {object} PushSubscriptionView
 * @property {string} id
 * @property {Timestamp} created_at
 * @property {string} endpoint_host
 * @property {string} endpoint_hash
 * @property {Timestamp} [last_used_at]
 * @property {string} [label]
 */

/**
 * @typedef {object} PushSubscriptions
 * @property {PushSubscriptionView[]} subscriptions
 */

/**
 * What the pages need to say true sentences.
 * @typedef {object} PublicConfig
 * @property {number} priority_window_s
 * @property {number} broadcast_window_s
 * @property {number} heartbeat_interval_s
 * @property {boolean} demo
 */

/**
 * @typedef {object} FieldError
 * @property {string} field
 * @property {string} message
 */

/**
 * RFC 9457; `code` is the stable word to switch on.
 * @typedef {object} Problem
 * @property {string} type
 * @property {string} title
 * @property {number} status
 * @property {string} code
 * @property {string} detail
 * @property {FieldError[]} [errors]
 */

/**
 * Money that has not arrived yet; `request_id` is `null` for a payment that was never dispatched.
 *
 * `left_cents`: what of `amount_cents` nobody has moved yet. `state`: what it waits for. `last_error`: what the last
 * attempt that was refused came to, `null` if none was.
 * @typedef {object} OwedRefundView
 * @property {string} refund_id
 * @property {string | null} request_id
 * @property {RefundStatus} status
 * @property {number} amount_cents
 * @property {number} attempts
 * @property {string} cause
 * @property {string} currency
 * @property {number} left_cents
 * @property {RefundProgress} state
 * @property {string | null} last_error
 */

/**
 * A payment that a customer's bank asks for; `dispute_id`, `payment_intent_id` and `status` are Stripe's.
 * @typedef {object} DisputeView
 * @property {string} dispute_id
 * @property {string} payment_intent_id
 * @property {string | null} request_id
 * @property {number} amount_cents
 * @property {string} currency
 * @property {string} status
 */

/**
 * @typedef {object} AccountState
 * @property {string} id
 * @property {boolean} is_disabled
 */

/**
 * `is_retried`: whether it is asked for once more; all of one that is done is back.
 * @typedef {object} RefundRetried
 * @property {string} refund_id
 * @property {boolean} is_retried
 */

/**
 * Background work on one row that failed too often and waits for an operator; `last_error` is its kind and first line.
 * @typedef {object} SetAside
 * @property {string} work
 * @property {string} id
 * @property {number} failures
 * @property {string} last_error
 * @property {Timestamp} set_aside_at
 */

/**
 * What the node that answers says of itself; `loops_dying` names background loops that a bug ends again and again.
 * @typedef {object} NodeState
 * @property {number} outbox_depth
 * @property {string[]} loops_dying
 */

/**
 * Counts and lists behind the operations page.
 * @typedef {object} OpsSnapshot
 * @property {Timestamp} at
 * @property {Record<string, number>} counts
 * @property {RequestView[]} open_requests
 * @property {OwedRefundView[]} refunds_owed
 * @property {DisputeView[]} disputes
 * @property {RequestView[]} reported_requests
 * @property {SetAside[]} set_aside
 * @property {NodeState} node
 */

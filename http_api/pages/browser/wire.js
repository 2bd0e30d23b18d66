/**
 * The words on the wire, as the pages read them. Types only: the server's `/openapi.json` and `/asyncapi.json`
 * are the source; unknown members are ignored, so a newer server may say more.
 */

/** @typedef {"available" | "busy" | "off_duty" | "offline"} Availability */
/** @typedef {"socket" | "push" | "none"} Reachable */
/** @typedef {"priority_broadcast" | "broadcast"} RoutingType */
/** @typedef {"independent" | "workshop"} ProviderType */
/** @typedef {"priority_offered" | "broadcasting" | "accepted" | "in_progress" | "completed" | "unfilled" | "cancelled"} RequestStatus */

/** @typedef {{id: string, name: string}} Named */

/**
 * @typedef {object} Account
 * @property {string} id
 * @property {"customer" | "mechanic" | "admin"} role
 * @property {string} name
 * @property {string} email
 */

/**
 * What every visitor may know of the server's settings.
 * @typedef {object} Config
 * @property {number} priority_window_s
 * @property {number} broadcast_window_s
 * @property {number} heartbeat_interval_s
 * @property {boolean} demo
 */

/**
 * @typedef {object} MechanicStatus
 * @property {string} mechanic_id
 * @property {boolean} is_online
 * @property {string | null} last_seen  RFC 3339; null if never seen
 * @property {Availability} availability
 * @property {Reachable} reachable
 * @property {string} as_of
 * @property {number} version  only grows
 */

/**
 * @typedef {object} Favorite
 * @property {string} provider_id
 * @property {string} provider_name
 * @property {ProviderType} provider_type
 * @property {number} services_count
 * @property {number} total_spent_cents
 * @property {string} currency
 * @property {string | null} last_service_at
 * @property {MechanicStatus | null} status
 */

/**
 * @typedef {object} Plan
 * @property {string} id
 * @property {string} name
 * @property {number} price_cents
 * @property {string} currency
 * @property {number} duration_min
 * @property {string} session_type
 * @property {boolean} first_time_only
 * @property {boolean} eligible
 */

/** @typedef {{id: string, kind: "priority" | "broadcast", expires_at: string, expires_in_ms: number}} RequestOffer */
/** @typedef {{status: "pending" | "succeeded" | "failed", amount_cents: number}} Refund */
/** @typedef {{at: string, event: string, [extra: string]: unknown}} TimelineEntry */

/**
 * @typedef {object} SessionRequest
 * @property {string} id
 * @property {number} version  only grows
 * @property {string} plan
 * @property {string} session_type
 * @property {RoutingType} routing_type
 * @property {RequestStatus} status
 * @property {string} customer_name
 * @property {Named | null} preferred_mechanic
 * @property {Named | null} assigned_mechanic
 * @property {RequestOffer | null} offer
 * @property {"declined" | "expired" | "skipped" | null} fallback_reason
 * @property {string} created_at
 * @property {string | null} accepted_at
 * @property {string | null} completed_at
 * @property {Refund | null} refund
 * @property {TimelineEntry[]} timeline
 */

/**
 * @typedef {object} Offer
 * @property {string} offer_id
 * @property {string} request_id
 * @property {"priority" | "broadcast"} kind
 * @property {string} customer_name
 * @property {string} plan
 * @property {string} session_type
 * @property {number} duration_min
 * @property {string} expires_at
 * @property {number} expires_in_ms
 */

/** @typedef {"taken" | "expired" | "cancelled" | "skipped" | "declined"} WithdrawReason */

/**
 * @typedef {{checkout_id: string, kind: "stripe", url: string, expires_at: string}
 *   | {checkout_id: string, kind: "free", request: SessionRequest}} Checkout
 */
/** @typedef {{checkout_id: string, status: "open" | "paid" | "expired" | "failed", request_id?: string | null}} CheckoutState */

/**
 * @typedef {object} CustomerWelcome
 * @property {"welcome"} type
 * @property {string} account_id
 * @property {string} server_time
 * @property {number} heartbeat_interval_s
 * @property {SessionRequest[]} requests
 */
/**
 * @typedef {object} MechanicWelcome
 * @property {"welcome"} type
 * @property {string} mechanic_id
 * @property {string} connection_id
 * @property {string} server_time
 * @property {number} heartbeat_interval_s
 * @property {boolean} on_duty
 * @property {Offer[]} offers
 * @property {SessionRequest | null} request
 */

/**
 * @typedef {CustomerWelcome
 *   | MechanicWelcome
 *   | {type: "heartbeat_ack", server_time?: string}
 *   | ({type: "status"} & MechanicStatus)
 *   | {type: "request_update", request: SessionRequest}
 *   | {type: "favorite_prompt", request_id: string, mechanic: Named}
 *   | {type: "availability", on_duty: boolean, availability: Availability}
 *   | {type: "offer", offer: Offer}
 *   | {type: "offer_accepted", offer_id: string, request: SessionRequest}
 *   | {type: "offer_withdrawn", offer_id: string, reason: WithdrawReason}
 *   | {type: "error", code: string, message: string, ref?: string | null}} ServerMessage
 */

export {};

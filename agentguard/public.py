"""The public names: each is one of `agentguard`, from where one imports it."""

from agentguard.adapters.client import InheritedRun, inherited_run
from agentguard.approval import Approval, ApprovalRequest, Approver
from agentguard.approvers import HTTPApprover
from agentguard.credentials.broker import CredentialBroker, CredentialRequest, IssuedCredential
from agentguard.credentials.credential import Credential
from agentguard.credentials.tokenexchange import ExchangeFor, TokenExchangeBroker
from agentguard.errors import (
    AccessDenied,
    AgentGuardError,
    ConfigurationError,
    CredentialError,
    PolicyError,
    Refusal,
    UnmappableTypeError,
)
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.ledger import MemoryLedger
from agentguard.guard import Guard
from agentguard.identity.dialects import Dialect
from agentguard.identity.issuers import TrustedIssuer, UnsafeSharedIdentity
from agentguard.identity.keys import JWKS, FixedKeys
from agentguard.identity.sources import stdio_audience
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.local import UnsafeLocalIssuer
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import Kind, MemoryStore, RunRecord, RunState, Store
from agentguard.limits import Limits
from agentguard.live.reloading import Reload
from agentguard.model import Decision, Effect, EntityUid, Grade, Invocation, Reason
from agentguard.policy.conversion.values import Scaled, Spend
from agentguard.policy.deciding.entities import Entity
from agentguard.policy.grants import grant_text
from agentguard.state import State, UnsafeMemoryState, open_state
from agentguard.steps.running import current_invocation

__all__ = [
    "JWKS",
    "AccessDenied",
    "AgentGuardError",
    "Approval",
    "ApprovalRequest",
    "Approver",
    "ConfigurationError",
    "Credential",
    "CredentialBroker",
    "CredentialError",
    "CredentialRequest",
    "Decision",
    "Dialect",
    "Effect",
    "Entity",
    "EntityUid",
    "ExchangeFor",
    "FixedKeys",
    "Grade",
    "Guard",
    "HTTPApprover",
    "InheritedRun",
    "Invocation",
    "InvocationVerifier",
    "IssuedCredential",
    "Issuer",
    "Kind",
    "Limits",
    "MemoryLedger",
    "MemoryStore",
    "PolicyError",
    "Reason",
    "Refusal",
    "Reload",
    "Run",
    "RunRecord",
    "RunState",
    "SQLiteLedger",
    "SQLiteStore",
    "Scaled",
    "Spend",
    "State",
    "Store",
    "TokenExchangeBroker",
    "TrustedIssuer",
    "UnmappableTypeError",
    "UnsafeLocalIssuer",
    "UnsafeMemoryState",
    "UnsafeSharedIdentity",
    "current_invocation",
    "grant_text",
    "inherited_run",
    "open_state",
    "stdio_audience",
]

// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// Services of Milvus, as they are on the wire.
const (
	milvus1 = "/milvus.grpc.MilvusService/"
	milvus2 = "/milvus.proto.milvus.MilvusService/"
)

// methodSet is a named list of methods, by their names without the service.
type methodSet struct{ name, service, methods string }

// methodSets are the built-in sets. A method is in one of them or in none: those
// of Milvus 1.x that change what one node has in memory (PreloadCollection,
// ReleaseCollection, ReloadSegments, PreloadHybridCollection) are in none, for a
// node that isn't told keeps what it has; nor is a stream of Milvus 2.x
// (CreateReplicateStream, DumpMessages), nor what no client calls (RegisterLink).
// Milvus 2.x: milvus-proto v2.6.18.
func methodSets() []methodSet {
	return []methodSet{
		{"milvus1-reads", milvus1, `
			Cmd CountCollection CountHybridCollection DescribeCollection DescribeHybridCollection DescribeIndex
			GetEntityByID GetEntityIDs GetVectorIDs GetVectorsByID HasCollection HasHybridCollection HasPartition
			HybridSearch HybridSearchInSegments Search SearchByID SearchInFiles
			ShowCollectionInfo ShowCollections ShowHybridCollectionInfo ShowHybridCollections ShowPartitions`},
		{"milvus1-writes", milvus1, `
			Compact CreateCollection CreateHybridCollection CreateIndex CreatePartition DeleteByID DeleteEntitiesByID
			DropCollection DropHybridCollection DropIndex DropPartition Flush Insert InsertEntity`},
		{"milvus2-reads", milvus2, `
			AllocTimestamp BatchDescribeCollection CalcDistance CheckHealth Connect DescribeAlias DescribeCollection
			DescribeDatabase DescribeIndex DescribeResourceGroup DescribeSegmentIndexData Dummy
			GetCollectionStatistics GetCompactionState GetCompactionStateWithPlans GetComponentStates GetFlushAllState
			GetFlushState GetImportState GetIndexBuildProgress GetIndexState GetIndexStatistics GetLoadState
			GetLoadingProgress GetMetrics GetPartitionStatistics GetPersistentSegmentInfo GetQuerySegmentInfo GetReplicas
			GetReplicateConfiguration GetReplicateInfo GetUserTags GetVersion HasCollection HasPartition HybridSearch
			ListAliases ListCredUsers ListDatabases ListFileResources ListImportTasks ListIndexedSegment
			ListPrivilegeGroups ListResourceGroups ListRowPolicies ListUsersWithTag Query RunAnalyzer Search
			SelectGrant SelectRole SelectUser ShowCollections ShowPartitions`},
		{"milvus2-writes", milvus2, `
			AddCollectionField AddCollectionFunction AddFileResource AddUserTags AlterAlias AlterCollection
			AlterCollectionField AlterCollectionFunction AlterDatabase AlterIndex BackupRBAC BatchUpdateManifest
			CreateAlias CreateCollection CreateCredential CreateDatabase CreateIndex CreatePartition CreatePrivilegeGroup
			CreateResourceGroup CreateRole CreateRowPolicy CreateSnapshot Delete DeleteCredential DeleteUserTags
			DropAlias DropCollection DropCollectionFunction DropDatabase DropIndex DropPartition DropPrivilegeGroup
			DropResourceGroup DropRole DropRowPolicy DropSnapshot Flush FlushAll Import Insert LoadBalance LoadCollection
			LoadPartitions ManualCompaction OperatePrivilege OperatePrivilegeGroup OperatePrivilegeV2 OperateUserRole
			ReleaseCollection ReleasePartitions RemoveFileResource RenameCollection ReplicateMessage RestoreRBAC
			RestoreSnapshot TransferNode TransferReplica TruncateCollection UpdateCredential
			UpdateReplicateConfiguration UpdateResourceGroups Upsert`},
	}
}

// MethodSets are the names of the built-in sets.
func MethodSets() (names []string) {
	for _, s := range methodSets() {
		names = append(names, s.name)
	}
	return names
}

// MethodSet is a built-in set of methods, each as /package.Service/Method. Nil:
// there is none of that name.
func MethodSet(name string) (methods []string) {
	for _, s := range methodSets() {
		if s.name == name {
			for _, m := range strings.Fields(s.methods) {
				methods = append(methods, s.service+m)
			}
		}
	}
	return methods
}

// ReadMethods are the methods of all sets of reads: to call one twice is to call it once.
func ReadMethods() map[string]bool {
	reads := map[string]bool{}
	for _, name := range MethodSets() {
		if strings.HasSuffix(name, "-reads") {
			for _, m := range MethodSet(name) {
				reads[m] = true
			}
		}
	}
	return reads
}
